chmod 750 d; chmod 700 d/sub
