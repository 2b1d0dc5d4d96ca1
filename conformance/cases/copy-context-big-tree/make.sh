i=0; while [ $i -lt 30 ]; do mkdir -p d$i/e/f; j=0; while [ $j -lt 30 ]; do echo $i.$j > d$i/e/f/$j; j=$((j+1)); done; i=$((i+1)); done
