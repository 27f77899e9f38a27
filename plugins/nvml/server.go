//go:build cgo

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/skiff-ml/skiff/plugins/proto/inventory"
)

// The rhythm of Watch. A beat every two seconds lets the host call ten silent
// ones a hang with room for a slow driver; what changes without an event (a MIG
// mode, a driver that was loaded meanwhile) is noticed at the next look.
const (
	defaultBeat = 2 * time.Second
	defaultLook = 30 * time.Second
)

// server answers for a reader.
type server struct {
	inventory.UnimplementedInventoryServer
	reader     *reader
	beat, look time.Duration
}

var _ inventory.InventoryServer = (*server)(nil)

func newServer(r *reader) *server { return &server{reader: r, beat: defaultBeat, look: defaultLook} }

// Describe says who answers.
func (s *server) Describe(context.Context, *inventory.DescribeRequest) (*inventory.DescribeResponse, error) {
	out := &inventory.DescribeResponse{Helper: fmt.Sprintf("skiff-nvml, contract %d", inventory.Version)}
	if s.reader.open() == nil {
		out.Driver, out.Cuda = s.reader.versions()
		out.Missing = s.reader.missing()
	}
	return out, nil
}

// List reads the devices.
func (s *server) List(context.Context, *inventory.ListRequest) (*inventory.ListResponse, error) {
	return s.reader.list(), nil
}

// Usage reads what they do.
func (s *server) Usage(context.Context, *inventory.UsageRequest) (*inventory.UsageResponse, error) {
	out, err := s.reader.usage()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return out, nil
}

// Watch beats, and tells of faults and changes, until the host hangs up.
func (s *server) Watch(_ *inventory.WatchRequest, stream inventory.Inventory_WatchServer) error {
	ctx := stream.Context()
	last := s.reader.list()
	events := s.reader.subscribe()
	defer func() { events.close() }()
	// From here on nothing is missed, so this is when the host should look.
	if err := stream.Send(changed()); err != nil {
		return err
	}
	looked := time.Now()
	for ctx.Err() == nil {
		fault, err := events.next(ctx, s.beat)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		event := &inventory.WatchEvent{Event: &inventory.WatchEvent_Beat{Beat: &inventory.Beat{}}}
		if fault != nil {
			event = &inventory.WatchEvent{Event: &inventory.WatchEvent_Fault{Fault: fault}}
		}
		if err := stream.Send(event); err != nil {
			return err
		}
		if fault == nil && time.Since(looked) < s.look {
			continue
		}
		looked = time.Now()
		if now := s.reader.list(); !proto.Equal(now, last) {
			last = now
			events.close()
			events = s.reader.subscribe() // for devices that came or went
			if err := stream.Send(changed()); err != nil {
				return err
			}
		}
	}
	return status.FromContextError(ctx.Err()).Err()
}

func changed() *inventory.WatchEvent {
	return &inventory.WatchEvent{Event: &inventory.WatchEvent_Changed{Changed: &inventory.Changed{}}}
}

// subscription waits for faults; set is nil where the driver has no events to
// give, and then only the beat is left.
type subscription struct {
	reader *reader
	set    nvml.EventSet
}

// subscribe asks for the faults of every device that can report them.
func (r *reader) subscribe() *subscription {
	s := &subscription{reader: r}
	if r.open() != nil || !r.has(symEvents) || !r.has(symRegister) || !r.has(symEventTypes) {
		return s
	}
	handles, _, err := r.handles()
	if err != nil || len(handles) == 0 {
		return s
	}
	set, ret := r.lib.EventSetCreate()
	if ret != nvml.SUCCESS {
		return s
	}
	registered := 0
	for _, h := range handles {
		types, ret := h.GetSupportedEventTypes()
		types &= nvml.EventTypeXidCriticalError | nvml.EventTypeDoubleBitEccError
		if ret == nvml.SUCCESS && types != 0 && h.RegisterEvents(types, set) == nvml.SUCCESS {
			registered++
		}
	}
	if registered == 0 {
		_ = set.Free()
		return s
	}
	s.set = set
	return s
}

func (s *subscription) close() {
	if s.set != nil {
		_ = s.set.Free()
		s.set = nil
	}
}

// next waits up to beat for a fault. No fault is a beat, and means that the
// driver answered. An error means that it answers no more.
func (s *subscription) next(ctx context.Context, beat time.Duration) (*inventory.Fault, error) {
	if s.set != nil {
		data, ret := s.set.Wait(uint32(beat.Milliseconds()))
		switch ret {
		case nvml.SUCCESS:
			return fault(data), nil
		case nvml.ERROR_TIMEOUT:
			return nil, nil
		}
	}
	timer := time.NewTimer(beat)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, nil
	case <-timer.C:
	}
	if s.reader.open() != nil {
		return nil, nil // no driver yet: that is an answer
	}
	if _, ret := s.reader.lib.DeviceGetCount(); ret != nvml.SUCCESS {
		return nil, fmt.Errorf("the driver no longer counts its devices: %w", ret)
	}
	return nil, nil
}

// fault words one event.
func fault(data nvml.EventData) *inventory.Fault {
	f := &inventory.Fault{}
	if data.Device != nil {
		if uuid, ret := data.Device.GetUUID(); ret == nvml.SUCCESS {
			f.Uuid = uuid
		}
	}
	switch {
	case data.EventType&nvml.EventTypeXidCriticalError != 0:
		f.Xid = data.EventData
		f.Message = fmt.Sprintf("XID %d", data.EventData)
	case data.EventType&nvml.EventTypeDoubleBitEccError != 0:
		// The driver reports the same as XID 48, where it reports both.
		f.Xid, f.Message = 48, "double-bit ECC error"
	default:
		f.Message = fmt.Sprintf("event of type %d", data.EventType)
	}
	return f
}
