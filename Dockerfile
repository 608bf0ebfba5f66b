# The worker's image: both wheels, built from this tree, on pinned requirements. Agents' own programs (claude,
# codex, node) are not in it: docs/how-to/deploy-with-compose.md says how to add them.
FROM python:3.13-slim AS build
WORKDIR /source
COPY requirements/build.txt requirements/build.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/build.txt
COPY producer producer
COPY worker worker
RUN python -m build --no-isolation --wheel --outdir /wheels producer \
 && python -m build --no-isolation --wheel --outdir /wheels worker

FROM python:3.13-slim
RUN --mount=type=bind,source=requirements/worker.txt,target=/requirements.txt \
    pip install --no-cache-dir --no-deps --require-hashes -r /requirements.txt
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels pip install --no-cache-dir --no-deps /wheels/*.whl
# Fixed numbers, so that a volume keeps its owner; the spool is disk, never a tmpfs.
RUN groupadd --gid 10001 agentrq \
 && useradd --uid 10001 --gid 10001 --create-home agentrq \
 && install --directory --owner agentrq --group agentrq --mode 700 /var/spool/agentrq
# Homes of sessions lie on the volume of homes: another container resumes a session with its home.
ENV AGENTRQ_SPOOL_DIR=/var/spool/agentrq AGENTRQ_HOMES_DIR=/home/agentrq/homes
USER 10001:10001
WORKDIR /home/agentrq
STOPSIGNAL SIGTERM
ENTRYPOINT ["agentrq"]
CMD ["worker"]
