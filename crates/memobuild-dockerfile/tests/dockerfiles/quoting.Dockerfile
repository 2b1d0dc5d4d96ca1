# syntax=docker/dockerfile:1
FROM busybox
ENV a="b c" d='e f' g=h\ i j="k\"l" m='n\' o=
ENV old  style   value "with quotes"
LABEL "a b"="c d" e.f=g \
   # comment inside
   h='i j'

LABEL single value
ARG x y=1 z="a b"
RUN --mount='type=cache,target=/a b' --network=none -- echo --flag
RUN --mount=type=cache,\
target=/x  echo "a   b"   c
CMD ["a", "b\u00e9\n", ""]
CMD ['a', "b"]
CMD [ ]
CMD [
ENTRYPOINT ["a" ,	"b"]
HEALTHCHECK --interval=5s --timeout=3s CMD ["curl", "x"]
HEALTHCHECK   NONE
HEALTHCHECK CMD   curl  x
VOLUME ["/a", "/b c"]
VOLUME /a   /b
EXPOSE 80	81/udp
ONBUILD RUN ["x"]
ONBUILD COPY --from=a b c
SHELL ["/bin/sh", "-c"]
STOPSIGNAL   SIGTERM  x
MAINTAINER  A B <a@b.c>
uSeR  a:b
NOPE  whatever   this is
ONBUILD
COPY
WORKDIR
