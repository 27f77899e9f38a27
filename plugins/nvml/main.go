//go:build cgo

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/skiff-ml/skiff/plugins/proto/inventory"
)

// maxMessage bounds what the helper reads; every request is empty.
const maxMessage = 64 << 10

func main() {
	switch cookie := inventory.Handshake(); {
	case len(os.Args) == 2 && os.Args[1] == "--probe":
		os.Exit(probe(os.Stdout, newReader(nvml.New())))
	case len(os.Args) > 1 || os.Getenv(cookie.MagicCookieKey) != cookie.MagicCookieValue:
		fmt.Fprintln(os.Stderr, "skiff-nvml: skiff starts this program by itself; run it with --probe alone to see what it reads, as JSON")
		os.Exit(2)
	}
	go func() {
		inventory.WaitForHost()
		os.Exit(0)
	}()
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: inventory.Handshake(),
		Plugins:         inventory.Set(newServer(newReader(nvml.New()))),
		Logger:          hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr, JSONFormat: true}),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(maxMessage))...)
		},
	})
}

// probe prints what List would answer.
func probe(out io.Writer, r *reader) int {
	data, err := protojson.MarshalOptions{Multiline: true, EmitUnpopulated: true}.Marshal(r.list())
	if err != nil {
		fmt.Fprintln(os.Stderr, "skiff-nvml: encode the inventory:", err)
		return 1
	}
	if _, err := fmt.Fprintln(out, string(data)); err != nil {
		return 1
	}
	return 0
}
