# The page's JavaScript SDK, by its lock file.
FROM node:22-bookworm-slim AS web
WORKDIR /web
COPY web/package.json web/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund

FROM golang:1.27-bookworm AS build
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
COPY --from=web /web/node_modules/pocketbase/dist/pocketbase.es.mjs pb_public/vendor/
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/pocketbase/pocketbase.Version=${VERSION}" -o /out/groundwork . \
 && mkdir -p /out/data

# static: no shell, CA roots and time zones included (scratch has no roots).
FROM gcr.io/distroless/static-debian12:nonroot
ENV APP_ENV=production
COPY --from=build /out/groundwork /usr/local/bin/groundwork
# Owned by the non-root user here, so that a new named volume inherits it.
COPY --from=build --chown=nonroot:nonroot /out/data /data
VOLUME /data
EXPOSE 8090
ENTRYPOINT ["/usr/local/bin/groundwork"]
CMD ["serve", "--http", "0.0.0.0:8090", "--dir", "/data"]
