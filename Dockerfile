# Hikyaku in a container: built from source, run by an unprivileged user.
#
#   docker build -t hikyaku .
#   docker run -p 8025:8025 -v hikyaku:/var/lib/hikyaku hikyaku

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches keep what was downloaded and compiled from one build to the next; the program is copied out because they are not
# part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin hikyaku \
    && cp target/release/hikyaku /usr/local/bin/hikyaku

FROM debian:bookworm-slim
# The certificates are for TLS to relays, tzdata for the time zones of recurring campaigns.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates tzdata \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/hikyaku hikyaku
COPY --from=build /usr/local/bin/hikyaku /usr/local/bin/hikyaku
USER hikyaku
# In a container loopback is nobody's, so every interface is listened on; `docker run -p` decides who gets in.
ENV HIKYAKU_DATA_DIR=/var/lib/hikyaku \
    HIKYAKU_LISTEN=0.0.0.0:8025 \
    HIKYAKU_LOG_FORMAT=json
VOLUME /var/lib/hikyaku
EXPOSE 8025
# Configuration and database, as the process itself sees them: what a restart may mend. It serves workers too, which listen
# nowhere, and needs no curl in the image.
HEALTHCHECK --interval=30s --timeout=15s --start-period=20s CMD ["hikyaku", "doctor", "--ready"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["hikyaku"]
CMD ["serve"]
