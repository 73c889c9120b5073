# NGINX=PATH chooses another nginx binary, NGINX_SOURCE=DIR the source tree that fits it.
export NGINX NGINX_SOURCE

# cargo would take a jobserver that is not handed down to it for a broken one
unexport MAKEFLAGS

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-stop test build install check bench fuzz soak clean

help:
	@echo 'make demo        install what is missing, build, start the demo on loopback and say what to try'
	@echo 'make demo-stop   end it'
	@echo 'make test        install what is missing, build, run every test (T=t/FILE.t for one suite)'
	@echo 'make build       objs/ngx_http_cc_module.so, for the nginx in PATH'
	@echo 'make install     copy it into the modules folder of that nginx (DESTDIR=DIR for a package)'
	@echo 'make setup       only install what is missing'
	@echo 'make check       format, lints, licences, syntax of all files, memory'
	@echo 'make bench       benchmarks side by side with peers (ARGS=--help says more)'
	@echo 'make fuzz        fuzzing'
	@echo 'make soak        a long run under faults (ARGS="MINUTES --seed N", ARGS=--help says more)'
	@echo 'make clean       remove what was built'
	@echo
	@echo 'NGINX=PATH chooses another nginx binary, NGINX_SOURCE=DIR the source tree that fits it.'

setup:
	@.ci/setup

build:
	@.ci/setup --check
	@.ci/env .ci/build

test: setup
	@.ci/browser
	@.ci/env .ci/test $(T)

demo: setup
	@.ci/env .ci/build
	@.ci/env .ci/demo start

demo-stop:
	@.ci/demo stop

install:
	@.ci/env .ci/install

check: setup
	@.ci/env .ci/check

bench fuzz soak:
	@test -x t/$@/run || { echo '$@ is not available in this version'; exit 2; }
	@.ci/setup
	@.ci/env .ci/build
	@.ci/env t/$@/run $(ARGS)

clean: demo-stop
	@rm -rf objs
	@PATH=$$PATH:$$HOME/.cargo/bin cargo clean --quiet
