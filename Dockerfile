# One image with the three programs; docker-compose.yml runs it as coordinator and workers.
#   docker build -t didact .
#   docker run --rm didact didact --help
FROM debian:12-slim AS build
WORKDIR /src
# The package list changes rarely: its layer is reused while only sources change.
COPY deploy/install-deps.sh deploy/install-deps.sh
RUN deploy/install-deps.sh && rm -rf /var/lib/apt/lists/*
COPY . .
RUN make -j"$(nproc)" all && make install PREFIX=/usr/local DESTDIR=/stage

FROM debian:12-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends libzmq5 libprotobuf-c1 libsqlite3-0 libopenblas0-pthread libuv1 \
       libmicrohttpd12 libjansson4 libyaml-0-2 libsodium23 libpng16-16 libjpeg62-turbo zlib1g curl tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/didact didact \
    && install -d -o didact -g didact /var/lib/didact/coordinator /var/lib/didact/worker /keys
COPY --from=build /stage/usr/local/ /usr/local/
COPY deploy/docker/ /usr/local/libexec/didact/
USER didact
WORKDIR /var/lib/didact
# A compute thread per slot is ours; BLAS threads beside them would only get in the way.
ENV OPENBLAS_NUM_THREADS=1
EXPOSE 7707 7780
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["didactd", "--help"]
