FROM busybox
RUN <<EOF 3<<'TWO' cat <&3
one $x
# no comment
EOF
two \
TWO
COPY <<a <<-"b c" /x/
	A
a
	B
	b c
RUN echo "<<EOF" \<<NO
RUN ["<<EOF"]
RUN cat <<-EOF | \
  tr a b
	x
	EOF
ADD <<E\OF /y
z
EOF
RUN echo $((1<<2)) <<< here
RUN <<E1 cat && <<E2 cat
E2
E1
E1
E2
RUN it's <<EOF
USER <<EOF
