# escape=`
# a
FROM busybox

RUN dir c:\ `
   more` 

# c
  # d
  end ``
RUN a `  	
 b
  RUN	x	`
	z   
ENV a=`"b
RUN last `