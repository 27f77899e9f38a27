//go:build cgo

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	mockserver "github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/skiff-ml/skiff/plugins/proto/inventory"
)

// lib is go-nvml's mock of a DGX A100. What the mock has no answer for is set
// here as such a machine answers; what neither has panics, as the call to a
// missing symbol would end the process.
func lib(t *testing.T, missing ...string) *mockserver.Server {
	t.Helper()
	s := dgxa100.New()
	s.LookupSymbolFunc = func(symbol string) error {
		if slices.Contains(missing, symbol) {
			return errors.New("undefined symbol")
		}
		return nil
	}
	for i := range s.Devices {
		d := device(s, i)
		d.UUID = fmt.Sprintf("GPU-%08d", i)
		d.GetPciInfoFunc = func() (nvml.PciInfo, nvml.Return) { return pci(fmt.Sprintf("00000000:%02X:00.0", i+10)), nvml.SUCCESS }
		d.GetNvLinkStateFunc = func(link int) (nvml.EnableState, nvml.Return) {
			if link >= 12 {
				return 0, nvml.ERROR_INVALID_ARGUMENT
			}
			return nvml.FEATURE_ENABLED, nvml.SUCCESS
		}
		d.GetNvLinkRemotePciInfoFunc = func(link int) (nvml.PciInfo, nvml.Return) {
			return pci(fmt.Sprintf("00000000:%02X:00.0", 0xc0+link%6)), nvml.SUCCESS
		}
		d.GetNvLinkRemoteDeviceTypeFunc = func(int) (nvml.IntNvLinkDeviceType, nvml.Return) {
			return nvml.NVLINK_DEVICE_TYPE_SWITCH, nvml.SUCCESS
		}
		d.GetTopologyCommonAncestorFunc = func(nvml.Device) (nvml.GpuTopologyLevel, nvml.Return) {
			return nvml.TOPOLOGY_NODE, nvml.SUCCESS
		}
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
			return nvml.Utilization{Gpu: uint32(i)}, nvml.SUCCESS
		}
		d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
			return []nvml.ProcessInfo{{Pid: 100, UsedGpuMemory: 1 << 30}, {Pid: 101, UsedGpuMemory: 1<<64 - 1}}, nvml.SUCCESS
		}
		d.GetGraphicsRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
			return []nvml.ProcessInfo{{Pid: 100, UsedGpuMemory: 2 << 30}}, nvml.SUCCESS
		}
	}
	return s
}

func device(s *mockserver.Server, i int) *mockserver.Device { return s.Devices[i].(*mockserver.Device) }

func pci(bus string) nvml.PciInfo {
	var p nvml.PciInfo
	for i, c := range []byte(bus) {
		p.BusId[i] = int8(c)
	}
	return p
}

func TestListOfADGX(t *testing.T) {
	got := newReader(lib(t)).list()
	if len(got.GetDevices()) != 8 || got.GetDriver() != "550.54.15" || got.GetCuda() != "12.4" || got.GetReason() != "" || len(got.GetNotes()) != 0 {
		t.Fatalf("got %v", got)
	}
	d := got.GetDevices()[3]
	if d.GetUuid() != "GPU-00000003" || d.GetIndex() != 3 || d.GetMinor() != 3 || !strings.Contains(d.GetModel(), "A100-SXM4-40GB") ||
		d.GetMemoryBytes() != 40<<30 || d.GetPciBusId() != "00000000:0d:00.0" || d.GetComputeCapability() != "8.0" || d.GetMig() != "disabled" {
		t.Errorf("device 3: %v", d)
	}
	for i, row := range got.GetLinks() {
		for j, cell := range row.GetCells() {
			want := "NV12"
			if i == j {
				want = "X"
			}
			if cell != want {
				t.Errorf("links[%d][%d] is %s, want %s", i, j, cell, want)
			}
		}
	}
}

// A driver that lacks an optional call must not be asked: the functions of the
// mock are taken away together with the symbols, so that a call would panic.
func TestCallsThatTheDriverLacks(t *testing.T) {
	s := lib(t, optionalSymbols()...)
	s.SystemGetDriverVersionFunc, s.SystemGetCudaDriverVersionFunc, s.EventSetCreateFunc = nil, nil, nil
	for i := range s.Devices {
		d := device(s, i)
		d.GetCudaComputeCapabilityFunc, d.GetMemoryInfoFunc, d.GetMigModeFunc, d.GetMinorNumberFunc = nil, nil, nil, nil
		d.GetNvLinkStateFunc, d.GetNvLinkRemotePciInfoFunc, d.GetNvLinkRemoteDeviceTypeFunc = nil, nil, nil
		d.GetTopologyCommonAncestorFunc, d.GetUtilizationRatesFunc = nil, nil
		d.GetComputeRunningProcessesFunc, d.GetGraphicsRunningProcessesFunc = nil, nil
		d.RegisterEventsFunc, d.GetSupportedEventTypesFunc = nil, nil
	}
	r := newReader(s)
	got := r.list()
	if len(got.GetDevices()) != 8 || len(got.GetLinks()) != 0 || got.GetReason() != "" {
		t.Fatalf("got %v", got)
	}
	if d := got.GetDevices()[0]; d.GetUuid() == "" || d.GetModel() == "" || d.GetMemoryBytes() != 0 || d.GetMinor() != -1 || d.GetMig() != "unsupported" {
		t.Errorf("device 0: %v", d)
	}
	usage, err := r.usage()
	if err != nil || len(usage.GetDevices()) != 8 || usage.GetDevices()[0].GetBusyPercent() != -1 || len(usage.GetProcesses()) != 0 {
		t.Errorf("usage %v, %v", usage, err)
	}
	if sub := r.subscribe(); sub.set != nil {
		t.Error("subscribed without the calls for it")
	}
	if diff := cmp.Diff(optionalSymbols(), r.missing()); diff != "" {
		t.Errorf("missing calls (-want +got):\n%s", diff)
	}
}

// Each optional call alone may be missing too.
func TestOneCallThatTheDriverLacks(t *testing.T) {
	for _, symbol := range optionalSymbols() {
		t.Run(symbol, func(t *testing.T) {
			s := lib(t, symbol)
			for i := range s.Devices {
				d := device(s, i)
				switch symbol {
				case symNVLinkState, symNVLinkRemote:
					d.GetNvLinkStateFunc, d.GetNvLinkRemotePciInfoFunc, d.GetNvLinkRemoteDeviceTypeFunc = nil, nil, nil
				case symNVLinkType:
					d.GetNvLinkRemoteDeviceTypeFunc = nil
				case symTopology:
					d.GetTopologyCommonAncestorFunc = nil
				case symGraphics:
					d.GetGraphicsRunningProcessesFunc = nil
				case symProcesses:
					d.GetComputeRunningProcessesFunc = nil
				case symMIG:
					d.GetMigModeFunc = nil
				case symMemory:
					d.GetMemoryInfoFunc = nil
				}
			}
			r := newReader(s)
			if got := r.list(); len(got.GetDevices()) != 8 {
				t.Errorf("got %v", got)
			}
			if _, err := r.usage(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWiredWithoutASwitch(t *testing.T) {
	s := lib(t)
	s.Devices = s.Devices[:3]
	// 0 and 1 share two bridged links (one of four is down), 2 has none.
	for i := range 2 {
		d, peer := device(s, i), fmt.Sprintf("00000000:%02X:00.0", 11-i)
		d.GetNvLinkStateFunc = func(link int) (nvml.EnableState, nvml.Return) {
			switch link {
			case 0, 2:
				return nvml.FEATURE_ENABLED, nvml.SUCCESS
			case 1, 3:
				return nvml.FEATURE_DISABLED, nvml.SUCCESS
			}
			return 0, nvml.ERROR_INVALID_ARGUMENT
		}
		d.GetNvLinkRemotePciInfoFunc = func(int) (nvml.PciInfo, nvml.Return) { return pci(peer), nvml.SUCCESS }
	}
	device(s, 2).GetNvLinkStateFunc = func(int) (nvml.EnableState, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	device(s, 0).GetTopologyCommonAncestorFunc = func(nvml.Device) (nvml.GpuTopologyLevel, nvml.Return) {
		return nvml.TOPOLOGY_SYSTEM, nvml.SUCCESS
	}
	device(s, 1).GetTopologyCommonAncestorFunc = func(nvml.Device) (nvml.GpuTopologyLevel, nvml.Return) {
		return 0, nvml.ERROR_UNKNOWN
	}
	var got []string
	for _, row := range newReader(s).list().GetLinks() {
		got = append(got, strings.Join(row.GetCells(), " "))
	}
	if diff := cmp.Diff([]string{"X NV2 SYS", "NV2 X ?", "SYS ? X"}, got); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
}

func TestADeviceThatIsLost(t *testing.T) {
	s := lib(t)
	byIndex := s.DeviceGetHandleByIndexFunc
	s.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i == 2 {
			return nil, nvml.ERROR_GPU_IS_LOST
		}
		return byIndex(i)
	}
	device(s, 5).GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
	got := newReader(s).list()
	if len(got.GetDevices()) != 6 || len(got.GetLinks()) != 6 || len(got.GetNotes()) != 2 || !strings.Contains(got.GetNotes()[0], "GPU 2 does not answer") {
		t.Errorf("got %v", got)
	}
	if d := got.GetDevices()[2]; d.GetIndex() != 3 {
		t.Errorf("the device after the lost one has index %d, want its own, 3", d.GetIndex())
	}
}

func TestMIGIsSeen(t *testing.T) {
	s := lib(t)
	device(s, 0).MigMode = nvml.DEVICE_MIG_ENABLE
	device(s, 1).GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_NOT_SUPPORTED }
	got := newReader(s).list().GetDevices()
	if got[0].GetMig() != "enabled" || got[1].GetMig() != "unsupported" || got[2].GetMig() != "disabled" {
		t.Errorf("modes %s, %s, %s", got[0].GetMig(), got[1].GetMig(), got[2].GetMig())
	}
}

func TestWithoutADriver(t *testing.T) {
	for ret, want := range map[nvml.Return]string{
		nvml.ERROR_LIBRARY_NOT_FOUND:       "has no NVIDIA driver. Install",
		nvml.ERROR_DRIVER_NOT_LOADED:       "modprobe nvidia",
		nvml.ERROR_LIB_RM_VERSION_MISMATCH: "different versions",
		nvml.ERROR_NO_PERMISSION:           "/dev/nvidiactl",
		nvml.ERROR_UNKNOWN:                 "NVML does not start",
	} {
		// Nothing but Init may be called: everything else would panic here.
		r := newReader(&mock.Interface{InitFunc: func() nvml.Return { return ret }})
		got := r.list()
		if len(got.GetDevices()) != 0 || !strings.Contains(got.GetReason(), want) {
			t.Errorf("%v: got %v, want a reason with %q", int(ret), got, want)
		}
		if usage, err := r.usage(); err != nil || len(usage.GetDevices()) != 0 {
			t.Errorf("usage %v, %v", usage, err)
		}
		if len(r.missing()) != 0 {
			t.Errorf("missing calls of a driver that is not there: %v", r.missing())
		}
	}
}

func TestUsage(t *testing.T) {
	got, err := newReader(lib(t)).usage()
	if err != nil {
		t.Fatal(err)
	}
	if len(got.GetDevices()) != 8 || got.GetDevices()[5].GetBusyPercent() != 5 || len(got.GetProcesses()) != 16 {
		t.Fatalf("got %v", got)
	}
	// One process that computes and draws is one; memory that is not told is 0.
	first, second := got.GetProcesses()[0], got.GetProcesses()[1]
	if first.GetPid() != 100 || first.GetUsedBytes() != 2<<30 || second.GetPid() != 101 || second.GetUsedBytes() != 0 {
		t.Errorf("processes %v, %v", first, second)
	}
}

// serve answers for s over a connection in memory.
func serve(t *testing.T, s *server) inventory.InventoryClient {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	g := grpc.NewServer()
	inventory.RegisterInventoryServer(g, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return inventory.NewInventoryClient(conn)
}

func TestWatchTellsOfFaults(t *testing.T) {
	s := lib(t)
	events := make(chan nvml.EventData, 2)
	freed := make(chan struct{})
	set := &mock.EventSet{
		WaitFunc: func(ms uint32) (nvml.EventData, nvml.Return) {
			select {
			case e := <-events:
				return e, nvml.SUCCESS
			case <-time.After(time.Duration(ms) * time.Millisecond):
				return nvml.EventData{}, nvml.ERROR_TIMEOUT
			}
		},
		FreeFunc: func() nvml.Return { close(freed); return nvml.SUCCESS },
	}
	s.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return set, nvml.SUCCESS }
	for i := range s.Devices {
		d := device(s, i)
		d.GetSupportedEventTypesFunc = func() (uint64, nvml.Return) {
			return nvml.EventTypeXidCriticalError | nvml.EventTypeDoubleBitEccError | nvml.EventTypePState, nvml.SUCCESS
		}
		d.RegisterEventsFunc = func(types uint64, _ nvml.EventSet) nvml.Return {
			if types != nvml.EventTypeXidCriticalError|nvml.EventTypeDoubleBitEccError {
				t.Errorf("registered for events of type %d", types)
			}
			return nvml.SUCCESS
		}
	}
	events <- nvml.EventData{Device: s.Devices[4], EventType: nvml.EventTypeXidCriticalError, EventData: 79}
	events <- nvml.EventData{Device: s.Devices[1], EventType: nvml.EventTypeDoubleBitEccError}

	server := newServer(newReader(s))
	server.beat = 10 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := serve(t, server).Watch(ctx, &inventory.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 4 {
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.GetChanged() != nil:
			got = append(got, "changed")
		case e.GetFault() != nil:
			got = append(got, fmt.Sprintf("%s %d", e.GetFault().GetUuid(), e.GetFault().GetXid()))
		case e.GetBeat() != nil:
			got = append(got, "beat")
		}
	}
	if diff := cmp.Diff([]string{"changed", "GPU-00000004 79", "GPU-00000001 48", "beat"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	cancel()
	select {
	case <-freed:
	case <-time.After(30 * time.Second):
		t.Error("the event set is never freed")
	}
}

// A driver that is installed later, and one without events.
func TestWatchNoticesADriver(t *testing.T) {
	s := lib(t, symEvents)
	loaded := make(chan struct{})
	s.InitFunc = func() nvml.Return {
		select {
		case <-loaded:
			return nvml.SUCCESS
		default:
			return nvml.ERROR_LIBRARY_NOT_FOUND
		}
	}
	server := newServer(newReader(s))
	server.beat, server.look = 10*time.Millisecond, 20*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := serve(t, server)
	stream, err := client.Watch(ctx, &inventory.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	changes, beats := 0, 0
	for changes < 2 {
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e.GetChanged() != nil {
			changes++
		} else if beats++; beats == 3 {
			close(loaded)
		}
	}
	list, err := client.List(ctx, &inventory.ListRequest{})
	if err != nil || len(list.GetDevices()) != 8 {
		t.Errorf("after the driver came: %v, %v", list, err)
	}
	who, err := client.Describe(ctx, &inventory.DescribeRequest{})
	if err != nil || who.GetDriver() == "" || !slices.Equal(who.GetMissing(), []string{symEvents}) {
		t.Errorf("description %v, %v", who, err)
	}
}

// A driver that stops to answer ends the stream, and with it the helper's life.
func TestWatchEndsWithTheDriver(t *testing.T) {
	s := lib(t, symEvents)
	server := newServer(newReader(s))
	server.beat = 10 * time.Millisecond
	if server.reader.list(); len(s.Devices) != 8 {
		t.Fatal("no devices to lose")
	}
	s.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNKNOWN }
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := serve(t, server).Watch(ctx, &inventory.WatchRequest{})
	for err == nil {
		_, err = stream.Recv()
	}
	if !strings.Contains(err.Error(), "no longer counts its devices") {
		t.Errorf("the stream ended with %v", err)
	}
}
