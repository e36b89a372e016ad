# The service as a container: docker build -t layertap . && docker run -p 8080:8080 layertap
#
#   --build-arg GPU=1      TensorFlow's CUDA build; run it with --gpus all
#   --build-arg BASE=...   any image with python3.11, its venv module and CA certificates
#
# Other models: mount them over the ones that ship, -v /my/models:/app/models:ro. Settings are LAYERTAP_*
# variables. What one start works out for the next is kept in /var/cache/layertap; mount a volume there to keep it
# longer than the container. Nothing else is written outside /tmp and /dev/shm: --read-only --tmpfs /tmp works.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ARG GPU=0
COPY requirements.txt /build/
# The rule is the Makefile's: GPU=1 swaps the line that requirements.txt marks. Wheels only, so that no stage
# needs a compiler.
RUN if [ "$GPU" = 1 ]; then \
        sed -i 's/^tensorflow-cpu==\([^;]*\);[^#]*/tensorflow[and-cuda]==\1 /' /build/requirements.txt; \
    fi \
    && python3.11 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: \
        -r /build/requirements.txt

FROM ${BASE}
# A number beside the name: Kubernetes' runAsNonRoot cannot judge a name.
RUN groupadd --gid 10001 layertap \
    && useradd --uid 10001 --gid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin layertap \
    && install -d -o 10001 -g 10001 -m 700 /var/cache/layertap
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
# .dockerignore lets only what the service needs through. It belongs to root: the service cannot change itself.
COPY . .
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LAYERTAP_CACHE_DIR=/var/cache/layertap
USER 10001:10001
EXPOSE 8080
# In Python, since there is no curl, and past any proxy that the environment names. The port is the service's
# own: PORT, LAYERTAP_BIND or layertap.toml. The exec form needs no shell either.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; from service.settings import load_settings; build_opener(ProxyHandler({})).open(f'http://127.0.0.1:{load_settings().address[1]}/healthz', timeout=4)"]
CMD ["gunicorn", "-c", "gunicorn.conf.py"]
