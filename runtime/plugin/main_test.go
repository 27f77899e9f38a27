package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/skiff-ml/skiff/plugins/proto/inventory"
)

// TestMain makes the test binary a helper too: started by a Supervisor it
// behaves as the file beside it says.
func TestMain(m *testing.M) {
	if hs := inventory.Handshake(); os.Getenv(hs.MagicCookieKey) == hs.MagicCookieValue {
		actHelper(hs)
		os.Exit(0)
	}
	if helper := os.Getenv(hostEnv); helper != "" {
		actHost(helper)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// script is how the acting helper behaves: each call may "hang", "exit" or
// "huge", each start "exit", "hang", "garbage", "version" or "noisy".
type script struct {
	Start, Describe, List, Watch, Usage string
	// Lives bounds the misbehaviour to the first so many starts; 0 is no bound.
	Lives   int
	Devices []string
	Links   [][]string
	Reason  string
	// Fault is reported once by each Watch.
	FaultUUID string
	FaultXID  uint64
}

type acting struct {
	inventory.UnimplementedInventoryServer
	file string
}

func scriptFile(helper string) string { return helper + ".script" }

func (a acting) script() script {
	var s script
	data, err := os.ReadFile(a.file)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "read the script:", err)
		os.Exit(3)
	}
	if s.Lives > 0 && lives(a.file) > s.Lives {
		s = script{Devices: s.Devices, Links: s.Links}
	}
	return s
}

// lives counts the starts so far: one byte each.
func lives(file string) int {
	info, err := os.Stat(file + ".lives")
	if err != nil {
		return 0
	}
	return int(info.Size())
}

func actHelper(hs plugin.HandshakeConfig) {
	go func() {
		inventory.WaitForHost()
		os.Exit(0)
	}()
	self, err := os.Executable()
	if err != nil {
		os.Exit(3)
	}
	a := acting{file: scriptFile(self)}
	f, err := os.OpenFile(a.file+".lives", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(3)
	}
	_, _ = f.WriteString("x")
	_ = f.Close()
	switch a.script().Start {
	case "exit":
		os.Exit(7)
	case "hang":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case "garbage":
		fmt.Println("hello")
		os.Exit(0)
	case "version":
		hs.ProtocolVersion = inventory.Version + 1
	case "noisy":
		for range 2000 {
			fmt.Fprintln(os.Stderr, strings.Repeat("x", 500))
		}
	case "environ":
		data := strings.Join(os.Environ(), "\x00")
		_ = os.WriteFile(a.file+".environ", []byte(data), 0o600)
	}
	plugin.Serve(&plugin.ServeConfig{HandshakeConfig: hs, Plugins: inventory.Set(a), GRPCServer: plugin.DefaultGRPCServer,
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr, JSONFormat: true})})
}

func misbehave(how string) {
	switch how {
	case "hang":
		select {}
	case "exit":
		os.Exit(7)
	}
}

func (a acting) Describe(context.Context, *inventory.DescribeRequest) (*inventory.DescribeResponse, error) {
	s := a.script()
	misbehave(s.Describe)
	out := &inventory.DescribeResponse{Helper: "acting", Missing: []string{"nvmlNothing"}}
	if s.Describe == "huge" {
		out.Helper = strings.Repeat("x", 2*maxMessage)
	}
	return out, nil
}

func (a acting) List(context.Context, *inventory.ListRequest) (*inventory.ListResponse, error) {
	s := a.script()
	misbehave(s.List)
	out := &inventory.ListResponse{Driver: "999.1", Reason: s.Reason}
	for i, uuid := range s.Devices {
		out.Devices = append(out.Devices, &inventory.Device{Uuid: uuid, Index: int32(i), Model: "Acting GPU", MemoryBytes: 8 << 30,
			PciBusId: fmt.Sprintf("00000000:%02x:00.0", i+1), Mig: "disabled", Minor: int32(i)})
	}
	for _, row := range s.Links {
		out.Links = append(out.Links, &inventory.LinkRow{Cells: row})
	}
	if s.List == "huge" {
		out.Driver = strings.Repeat("x", 2*maxMessage)
	}
	return out, nil
}

func (a acting) Usage(context.Context, *inventory.UsageRequest) (*inventory.UsageResponse, error) {
	s := a.script()
	misbehave(s.Usage)
	out := &inventory.UsageResponse{}
	for _, uuid := range s.Devices {
		out.Devices = append(out.Devices, &inventory.DeviceUsage{Uuid: uuid, UsedBytes: 1 << 20, BusyPercent: 42})
		out.Processes = append(out.Processes, &inventory.Process{Uuid: uuid, Pid: 4711, UsedBytes: 1 << 20})
	}
	return out, nil
}

func (a acting) Watch(_ *inventory.WatchRequest, stream grpc.ServerStreamingServer[inventory.WatchEvent]) error {
	last := a.script()
	reported := false
	changed := &inventory.WatchEvent{Event: &inventory.WatchEvent_Changed{Changed: &inventory.Changed{}}}
	if err := stream.Send(changed); err != nil {
		return err
	}
	for stream.Context().Err() == nil {
		s := a.script()
		misbehave(s.Watch)
		event := &inventory.WatchEvent{Event: &inventory.WatchEvent_Beat{Beat: &inventory.Beat{}}}
		switch {
		case len(s.Devices) != len(last.Devices):
			event, last = changed, s
		case s.FaultXID != 0 && !reported:
			reported = true
			event.Event = &inventory.WatchEvent_Fault{Fault: &inventory.Fault{Uuid: s.FaultUUID, Xid: s.FaultXID}}
		case s.Watch == "end":
			return nil
		}
		if err := stream.Send(event); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// actingHelper puts the test binary, as a helper that follows s, into a folder
// of its own.
func actingHelper(t *testing.T, s script) string {
	t.Helper()
	helper := filepath.Join(t.TempDir(), HelperName)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(helper, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	follow(t, helper, s)
	return helper
}

// follow gives a helper its script, at once.
func follow(t *testing.T, helper string, s script) {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	next := scriptFile(helper) + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, scriptFile(helper)); err != nil {
		t.Fatal(err)
	}
}
