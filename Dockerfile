# maceproc with what it needs to record, on the kernel of the host:
#
#   docker build --tag maceproc .
#   docker run --rm --privileged --pid=host --network=host \
#       --volume /var/run/docker.sock:/var/run/docker.sock --volume "$PWD:/captures" \
#       maceproc run --container web -- ping -c 100 192.0.2.1
#
# --privileged is for tracefs and namespaces, --pid=host for the containers' processes, --network=host
# for the native ping and the outer device; the socket is how a container is found by its name. Three
# capabilities can replace --privileged: docs/getting-started.md. What only reads captures needs none
# of these: docker run --rm --volume "$PWD:/captures" maceproc analyze
#
# BASE is another Debian 13, such as one from a mirror: docker build --build-arg BASE=...
ARG BASE=debian:13-slim
FROM ${BASE} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends \
        gcc libc6-dev python3-dev python3-venv
COPY . /source
RUN python3 -m venv /opt/maceproc && /opt/maceproc/bin/pip install --no-cache-dir '/source[export,plot]'

FROM ${BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends \
        docker-cli ethtool iproute2 iptables iputils-ping nftables python3 trace-cmd util-linux \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/maceproc /opt/maceproc
ENV PATH=/opt/maceproc/bin:$PATH
WORKDIR /captures
ENTRYPOINT ["maceproc"]
CMD ["--help"]
