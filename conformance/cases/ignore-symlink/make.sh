ln -s a l; ln -s d ld; ln -s a keep
