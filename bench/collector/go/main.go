// The same reports, taken by a gRPC server with generated code that does nothing but decode and
// acknowledge them. Prints its address.
package main

import (
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"

	pb "meshpulse.local/bench/pb"
)

type server struct {
	pb.UnimplementedIngestServer
}

func (server) Report(stream grpc.BidiStreamingServer[pb.ReportRequest, pb.ReportReply]) error {
	for {
		report, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		reply := &pb.ReportReply{EchoSentUnixUs: report.SentUnixUs}
		for _, batch := range report.Batches {
			reply.Acks = append(reply.Acks, &pb.Ack{Producer: batch.Producer, Seq: batch.Seq})
		}
		if err := stream.Send(reply); err != nil {
			return err
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	s := grpc.NewServer(grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(1<<20))
	pb.RegisterIngestServer(s, server{})
	panic(s.Serve(listener))
}
