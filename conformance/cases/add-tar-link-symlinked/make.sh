mkdir -p s/sub; echo 1 > s/one; echo 2 > s/sub/two; touch -d '2002-03-04 UTC' s/one s/sub/two s/sub s
tar --sort=name --owner=3 --group=4 --numeric-owner -C s -cf a.tar .; rm -r s
