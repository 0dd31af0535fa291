# The image of portwatcher, in two ways.
#
# `--target prebuilt` packs a binary that was built on the host (make build). It
# needs no other image and no network. It stands first because the classic
# builder builds every stage in file order up to the target.
#
# The last stage, the default, builds everything from source. BuildKit skips the
# first stage then; the classic builder does not, so run `make build` before.

FROM scratch AS prebuilt
ARG VERSION=dev
ARG COMMIT=unknown
COPY build/image/ /
LABEL org.opencontainers.image.title="portwatcher" \
      org.opencontainers.image.description="Tells which ports open and close in every container of a host" \
      org.opencontainers.image.vendor="portwatcher" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
# Inside the container's own network: the engine publishes it where it is asked to.
ENV PATH=/ PORTWATCHER_LISTEN=0.0.0.0:9888
EXPOSE 9888
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/portwatcher", "healthcheck"]
ENTRYPOINT ["/portwatcher"]
CMD ["run"]

FROM golang:1.26-bookworm AS build
WORKDIR /src
# The modules change seldom: a layer of their own keeps them cached.
COPY go.mod go.sum ./
RUN go mod download
COPY cmd/ cmd/
COPY internal/ internal/
ARG VERSION=dev
ARG COMMIT=unknown
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X portwatcher/internal/version.Version=${VERSION} -X portwatcher/internal/version.Commit=${COMMIT}" \
      -o /portwatcher ./cmd/portwatcher

FROM scratch
ARG VERSION=dev
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="portwatcher" \
      org.opencontainers.image.description="Tells which ports open and close in every container of a host" \
      org.opencontainers.image.vendor="portwatcher" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /portwatcher /portwatcher
# Inside the container's own network: the engine publishes it where it is asked to.
ENV PATH=/ PORTWATCHER_LISTEN=0.0.0.0:9888
EXPOSE 9888
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/portwatcher", "healthcheck"]
ENTRYPOINT ["/portwatcher"]
CMD ["run"]
