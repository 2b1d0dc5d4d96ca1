mkdir -p s/sub; echo 1 > s/one; echo 2 > s/sub/two; touch -d '2002-03-04 UTC' s/one s/sub/two s/sub s
tar --sort=name --owner=3 --group=4 --numeric-owner -C s -cf inner.tar one; tar --owner=0 --group=0 --mtime=@1 --numeric-owner -cf a.tar inner.tar; rm -r s inner.tar
