// An unguarded gRPC server in Go (grpc-go), with one method for each thing that a gate could spoil, and the echo of the drill.
// Its messages are bytes as they are, so that it needs no generated code. It prints its port, and ends with its parent.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const service = "interop.v1.EchoService"
const drillService = "drill.v1.EchoService"
const drillTick = 100 * time.Millisecond
const maxBytes = 32 << 20

// bytesCodec leaves messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (bytesCodec) Name() string { return "proto" }

var cancelled atomic.Int64

type answer func(request []byte, stream grpc.ServerStream) ([]byte, error)

// once makes a unary method of an answer.
func once(name string, work answer) grpc.StreamDesc {
	return grpc.StreamDesc{StreamName: name, Handler: func(_ any, stream grpc.ServerStream) error {
		var request []byte
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		response, err := work(request, stream)
		if err != nil {
			return err
		}
		return stream.SendMsg(&response)
	}}
}

func unary(request []byte, stream grpc.ServerStream) ([]byte, error) {
	initial := metadata.Pairs("x-initial", "one", "x-initial", "two", "x-initial-bin", "\x00\xff")
	if err := stream.SendHeader(initial); err != nil {
		return nil, err
	}
	stream.SetTrailer(metadata.Pairs("x-trailing", "three"))
	return request, nil
}

func metadataOf(_ []byte, stream grpc.ServerStream) ([]byte, error) {
	received, _ := metadata.FromIncomingContext(stream.Context())
	list := [][]string{}
	for key, values := range received {
		if !strings.HasPrefix(key, "x-") && key != "authorization" {
			continue
		}
		for _, value := range values {
			if strings.HasSuffix(key, "-bin") {
				value = hex.EncodeToString([]byte(value))
			}
			list = append(list, []string{key, value})
		}
	}
	sort.Slice(list, func(i, j int) bool { return strings.Join(list[i], " ") < strings.Join(list[j], " ") })
	return json.Marshal(list)
}

func fail(_ []byte, stream grpc.ServerStream) ([]byte, error) {
	stream.SetTrailer(metadata.Pairs("x-trailing", "three"))
	detailed, err := status.New(codes.Aborted, "refused by hand: 100 % ä").
		WithDetails(&errdetails.ErrorInfo{Reason: "BY_HAND", Domain: "interop"})
	if err != nil {
		return nil, err
	}
	return nil, detailed.Err()
}

func deadline(_ []byte, stream grpc.ServerStream) ([]byte, error) {
	until, has := stream.Context().Deadline()
	if !has {
		return []byte("none"), nil
	}
	return []byte(strconv.Itoa(int(math.Round(time.Until(until).Seconds())))), nil
}

func serverStream(_ any, stream grpc.ServerStream) error {
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	count, _ := strconv.Atoi(string(request))
	for sent := 0; count == 0 || sent < count; sent++ {
		message := []byte(fmt.Sprintf("message %d", sent))
		if err := stream.SendMsg(&message); err != nil {
			cancelled.Add(1)
			return err
		}
		if count != 0 {
			continue
		}
		select {
		case <-stream.Context().Done():
			cancelled.Add(1)
			return stream.Context().Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	stream.SetTrailer(metadata.Pairs("x-sent", strconv.Itoa(count)))
	return nil
}

func clientStream(_ any, stream grpc.ServerStream) error {
	messages, size := 0, 0
	for {
		var request []byte
		err := stream.RecvMsg(&request)
		if err == io.EOF {
			response := []byte(fmt.Sprintf("%d messages, %d bytes", messages, size))
			return stream.SendMsg(&response)
		}
		if err != nil {
			return err
		}
		messages++
		size += len(request)
	}
}

func bidi(_ any, stream grpc.ServerStream) error {
	for {
		var request []byte
		err := stream.RecvMsg(&request)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.SendMsg(&request); err != nil {
			return err
		}
	}
}

// witnesses holds the last timestamp that each client stream of the drill has brought, by its name.
var witnesses = struct {
	sync.Mutex
	last map[string]float64
}{last: map[string]float64{}}

func drillClientStream(_ any, stream grpc.ServerStream) error {
	name, count := "", 0
	for {
		var request []byte
		err := stream.RecvMsg(&request)
		if err == io.EOF {
			response := []byte(strconv.Itoa(count))
			return stream.SendMsg(&response)
		}
		if err != nil {
			return err
		}
		count++
		if name == "" {
			name = string(request)
		} else if moment, err := strconv.ParseFloat(string(request), 64); err == nil {
			witnesses.Lock()
			witnesses.last[name] = moment
			witnesses.Unlock()
		}
	}
}

// drillServerStream sends the time of the clock that all processes of a machine share.
func drillServerStream(_ any, stream grpc.ServerStream) error {
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	for {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			return err
		}
		message := []byte(strconv.FormatFloat(float64(now.Nano())/1e6, 'f', 3, 64))
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-time.After(drillTick):
		}
	}
}

func drillWitness([]byte, grpc.ServerStream) ([]byte, error) {
	witnesses.Lock()
	defer witnesses.Unlock()
	told, err := json.Marshal(witnesses.last)
	witnesses.last = map[string]float64{}
	return told, err
}

func main() {
	network, address := "tcp", os.Args[1]
	if path, isUnix := strings.CutPrefix(address, "unix:"); isUnix {
		network, address = "unix", path
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(bytesCodec{}), grpc.MaxRecvMsgSize(maxBytes), grpc.MaxSendMsgSize(maxBytes))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			once("Unary", unary),
			once("Public", unary),
			once("Metadata", metadataOf),
			once("Fail", fail),
			once("Deadline", deadline),
			once("Compressed", func(request []byte, _ grpc.ServerStream) ([]byte, error) { return request, nil }),
			once("Cancellations", func([]byte, grpc.ServerStream) ([]byte, error) {
				return []byte(strconv.FormatInt(cancelled.Load(), 10)), nil
			}),
			{StreamName: "ServerStream", Handler: serverStream, ServerStreams: true},
			{StreamName: "ClientStream", Handler: clientStream, ClientStreams: true},
			{StreamName: "Bidi", Handler: bidi, ServerStreams: true, ClientStreams: true},
		},
	}, nil)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: drillService,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			once("Unary", func(request []byte, _ grpc.ServerStream) ([]byte, error) { return request, nil }),
			once("Witness", drillWitness),
			{StreamName: "ServerStream", Handler: drillServerStream, ServerStreams: true},
			{StreamName: "ClientStream", Handler: drillClientStream, ClientStreams: true},
			{StreamName: "Bidi", Handler: bidi, ServerStreams: true, ClientStreams: true},
		},
	}, nil)
	port := 0
	if tcp, isTCP := listener.Addr().(*net.TCPAddr); isTCP {
		port = tcp.Port
	}
	fmt.Printf("{\"port\": %d, \"version\": %q}\n", port, grpc.Version)
	go func() {
		// Ends with its parent.
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	if err := server.Serve(listener); err != nil {
		panic(err)
	}
}
