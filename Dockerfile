# A tag moves with its patches. A release pins it: PYTHON=python:3.11-slim-bookworm@sha256:<digest>,
# the digest as `docker buildx imagetools inspect` prints it.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r requirements-build.lock \
 && python -m venv /opt/vmsvc && /opt/vmsvc/bin/pip install --require-hashes -r requirements.lock
COPY clients/python clients/python
COPY LICENSE NOTICE README.md pyproject.toml ./
COPY vmsvc_grpc vmsvc_grpc
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/vmsvc/bin/pip install --no-deps --no-index /wheels/*.whl \
 && /opt/vmsvc/bin/pip check

FROM ${PYTHON}
COPY --from=build /opt/vmsvc /opt/vmsvc
# The root file system may be read-only: modules were compiled when they were installed.
ENV PATH=/opt/vmsvc/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that runAsNonRoot can be checked.
USER 65532:65532
EXPOSE 50051 8080
ENTRYPOINT ["vmsvc-grpc"]
CMD ["serve"]
