# The REST server with DICOM, without torch: 440 MB besides the base image. See docs/containers.md.
# --build-arg PROGRAM=dashboard builds the dashboard instead (800 MB).
ARG PYTHON=3.12-slim-bookworm
ARG PROGRAM=api

FROM python:${PYTHON} AS build
ARG PROGRAM
WORKDIR /src
COPY pyproject.toml README.md LICENSE THIRD_PARTY_LICENSES.md ./
COPY requirements requirements
COPY containers containers
COPY src src
RUN sh containers/install.sh /opt/dermseg "$PROGRAM"

FROM python:${PYTHON} AS base
LABEL org.opencontainers.image.title="dermseg" \
      org.opencontainers.image.description="Outlines of skin lesions over HTTP. Not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-4.0"
RUN groupadd --gid 10001 dermseg \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/dermseg --shell /usr/sbin/nologin dermseg \
    && install -d -o dermseg -g dermseg -m 0700 /var/lib/dermseg
COPY --from=build /opt/dermseg /opt/dermseg
COPY containers/health.py /opt/dermseg/health.py
ENV PATH=/opt/dermseg/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DERMSEG_STATE=/var/lib/dermseg
USER 10001:10001
WORKDIR /var/lib/dermseg
VOLUME /var/lib/dermseg
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/opt/dermseg/health.py"]
ENTRYPOINT ["dermseg"]

# What each starts where nothing else is said, and where its health check asks.
FROM base AS image-api
ENV DERMSEG_HOST=0.0.0.0 DERMSEG_PORT=8000
EXPOSE 8000
CMD ["serve"]

FROM base AS image-dashboard
ENV DERMSEG_PORT=8501 DERMSEG_HEALTH=/_stcore/health
EXPOSE 8501
CMD ["dashboard", "--host", "0.0.0.0", "--port", "8501", "--no-browser"]

# hadolint ignore=DL3006
FROM image-${PROGRAM}
