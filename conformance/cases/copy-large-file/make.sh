python3 -c "open('big','wb').write(bytes(range(256))*20000)"
