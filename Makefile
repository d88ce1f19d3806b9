# One word per chore; CI runs `make test`. Each chore makes the environment it needs.
.PHONY: types
ROOMS = protocol manager worker cli batch_scripts
export PYTHONSAFEPATH = 1

# mypy runs no import hooks, so it cannot see an editable install whose folders are mapped.
# Show it the installed tree as links instead.
types:
	@rm -rf .types && mkdir -p .types/wqueue
	@ln -s $(CURDIR)/client/* .types/wqueue/
	@for room in $(ROOMS); do ln -s $(CURDIR)/$$room .types/wqueue/; done
