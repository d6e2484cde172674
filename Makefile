# make demo   the main job at full scale: a million apps, from the world to served answers
# make test   everything that checks the project
# make audit  known vulnerabilities of what is locked; asks a public database
# make comparison   installs the indexes that ours is measured against
# make proto  what Python reads messages with, anew from recommendations.proto
# make lock   resolve the dependencies anew (needs uv)

PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test check audit comparison proto lock clean

demo: $(INSTALLED)
	$(BIN)/storeloop run --config full

test: $(INSTALLED) check
	$(BIN)/pytest -n 2 --dist loadfile

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(INSTALLED): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/python -c 'import sys; assert sys.version_info[:2] == (3, 11), "Python 3.11 is needed"'
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

audit: .venv-audit/.installed
	.venv-audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock
	.venv-audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements-comparison.lock

.venv-audit/.installed: requirements-audit.lock
	test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --require-hashes -r requirements-audit.lock
	touch $@

comparison: $(INSTALLED)
	$(BIN)/pip install --quiet --require-hashes -r requirements-comparison.lock

proto: $(INSTALLED)
	$(BIN)/python -m grpc_tools.protoc -I recsys/online --python_out=recsys/online \
		--pyi_out=recsys/online recsys/online/recommendations.proto

COMPILE := uv pip compile --generate-hashes --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"

lock:
	$(COMPILE) pyproject.toml --extra dev -o requirements.lock
	echo pip-audit | $(COMPILE) - -o requirements-audit.lock
	$(COMPILE) pyproject.toml --extra dev --extra comparison -c requirements.lock -o requirements-comparison.lock

clean:
	rm -rf .venv .venv-audit workspace
