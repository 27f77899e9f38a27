package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skiff-ml/skiff/plugins/proto/inventory"
	"github.com/skiff-ml/skiff/runtime/device"
)

// Run keeps the helper alive and the inventory up to date until ctx ends, and
// then returns nil. It is called once. Nothing that the helper does, or fails to
// do, ends it early.
func (s *Supervisor) Run(ctx context.Context) error {
	for failures := 0; ; {
		began := time.Now()
		l, err := s.start(ctx)
		if err == nil {
			err = s.follow(ctx, l)
		}
		s.setLife(nil)
		gone := l == nil || l.end(s.cfg.KillWait)
		if ctx.Err() != nil {
			s.setStatus(func(st *Status) { st.State, st.PID = HelperStopped, 0 })
			return nil
		}
		s.degrade(ctx, err)
		if !gone {
			s.setStatus(func(st *Status) { st.State = HelperHeld })
			s.cfg.Logger.Warn("the inventory helper was killed but the kernel holds it; no other is started until it ends", "path", s.cfg.Path)
			if wait(ctx, l.gone, 0) != nil {
				return nil
			}
		}
		if time.Since(began) > s.cfg.Stable {
			failures = 0
		}
		pause := s.pause(failures)
		failures++
		if errors.Is(err, errRefused) {
			pause = 0 // nothing but a restart of skiff changes that
		}
		if wait(ctx, nil, pause) != nil {
			return nil
		}
	}
}

// pause is how long to wait after so many failures in a row.
func (s *Supervisor) pause(failures int) time.Duration {
	all := slices.Concat(s.cfg.Quick, s.cfg.Slow)
	return all[min(failures, len(all)-1)]
}

// wait returns nil after done is closed or the pause is over (0: never), and
// ctx's cause where that ends first.
func wait(ctx context.Context, done <-chan struct{}, pause time.Duration) error {
	var over <-chan time.Time
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-done:
		return nil
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Supervisor) setLife(l *life) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life, s.status.PID = l, 0
	if l != nil {
		s.status.PID, s.status.State = l.cmd.Process.Pid, HelperRunning
	}
}

// follow listens to the helper until something is wrong with it.
func (s *Supervisor) follow(ctx context.Context, l *life) error {
	var who *inventory.DescribeResponse
	err := l.call(ctx, s.cfg.ListTimeout, func(ctx context.Context) (err error) {
		who, err = l.client.Describe(ctx, &inventory.DescribeRequest{})
		return err
	})
	if err != nil {
		return fmt.Errorf("greet the inventory helper: %w", err)
	}
	s.setStatus(func(st *Status) { st.Helper, st.Missing = who.GetHelper(), who.GetMissing() })
	s.setLife(l)

	stream, err := l.client.Watch(l.ctx, &inventory.WatchRequest{})
	if err != nil {
		return fmt.Errorf("watch the GPUs: %w", err)
	}
	// The first event comes after a first full look; then silence is short.
	watchdog := time.AfterFunc(s.cfg.ListTimeout, func() { l.fail(errHung) })
	defer watchdog.Stop()
	for {
		event, err := stream.Recv()
		if l.ctx.Err() != nil {
			return fmt.Errorf("watch the GPUs: %w", context.Cause(l.ctx))
		}
		if err != nil {
			return fmt.Errorf("watch the GPUs: the inventory helper ended: %w", err)
		}
		watchdog.Stop()
		if err := s.act(ctx, l, event); err != nil {
			return err
		}
		watchdog.Reset(s.cfg.BeatTimeout)
	}
}

// act takes one event.
func (s *Supervisor) act(ctx context.Context, l *life, event *inventory.WatchEvent) error {
	now := time.Now()
	switch {
	case event.GetChanged() != nil:
		v, err := s.list(ctx, l)
		if err != nil {
			return err
		}
		before := s.known.list.Summary()
		s.known.learn(v, now)
		if after := s.known.list.Summary(); after != before {
			s.cfg.Logger.Info("GPUs found", "gpus", after, "driver", v.Driver)
		}
		s.setStatus(func(st *Status) { st.Err = "" })
	case event.GetFault() != nil:
		f := event.GetFault()
		s.cfg.Logger.Warn("a GPU reported a fault", "gpu", f.GetUuid(), "xid", f.GetXid(), "message", f.GetMessage())
		s.known.report(f, s.cfg.SuspectFor, now)
	}
	if s.known.listed {
		s.publish(s.known.view(now)) // a beat may be the one that ends a suspicion
	}
	return nil
}

// list asks the helper for all devices. Where it knows of none, what pure Go can
// read has a word too: the library may be missing while the driver works.
func (s *Supervisor) list(ctx context.Context, l *life) (device.Inventory, error) {
	var answer *inventory.ListResponse
	err := l.call(ctx, s.cfg.ListTimeout, func(ctx context.Context) (err error) {
		answer, err = l.client.List(ctx, &inventory.ListRequest{})
		return err
	})
	if err != nil {
		return device.Inventory{}, fmt.Errorf("list the GPUs: %w", err)
	}
	v, err := inventoryOf(answer)
	if err != nil {
		return device.Inventory{}, fmt.Errorf("list the GPUs: the inventory helper's answer makes no sense: %w", err)
	}
	if len(v.Devices) == 0 {
		if other := s.fallback(ctx, false); len(other.Devices) > 0 {
			other.Notes = append(v.Notes, other.Notes...)
			return other, nil
		}
	}
	device.AddPlaces(s.cfg.Root, v.Devices)
	return v, nil
}

// degrade says what is known while there is no helper to ask. Devices that it
// told of before are Unknown: what runs on them goes on, nothing new starts.
func (s *Supervisor) degrade(ctx context.Context, err error) {
	sentence := sentenceOf(err)
	missing := s.sum == nil
	s.setStatus(func(st *Status) {
		st.Err, st.PID, st.State = sentence, 0, HelperFailed
		switch {
		case missing:
			st.State, st.Err = HelperMissing, ""
		case errors.Is(err, errRefused):
			st.State = HelperRefused
		}
	})
	if missing {
		s.cfg.Logger.Info("no inventory helper; looking for GPUs without it", "path", s.cfg.Path)
	} else {
		s.cfg.Logger.Warn("the inventory helper failed", "path", s.cfg.Path, "error", err)
	}
	if s.known.listed {
		v := s.known.view(time.Now())
		for i := range v.Devices {
			if d := &v.Devices[i]; d.Health != device.Unhealthy {
				d.Health, d.HealthReason = device.Unknown, sentence
			}
		}
		v.Notes = append(v.Notes, sentence)
		s.publish(v)
		return
	}
	v := s.fallback(ctx, errors.Is(err, errHung))
	if missing {
		sentence = fmt.Sprintf("The inventory helper %s is not installed, so memory, links and faults of GPUs may be unknown. Install it beside skiff (make build).", s.cfg.Path)
		if s.cfg.Path == "" {
			sentence = "The inventory helper is switched off."
		}
	}
	v.Notes = append([]string{sentence}, v.Notes...)
	s.publish(v)
}

// errNoAnswer: what helps out where the helper cannot does not answer either.
var errNoAnswer = errors.New("no answer in time")

// fallback is what can be read without the helper. Where NVML hangs, nvidia-smi
// would too and is not asked, and nobody knows how the devices are.
func (s *Supervisor) fallback(ctx context.Context, hung bool) device.Inventory {
	var notes []string
	if s.cfg.SMI != "none" && !hung {
		limited, cancel := context.WithTimeoutCause(ctx, s.cfg.CallTimeout, errNoAnswer)
		v, err := device.ReadSMI(limited, s.cfg.SMI)
		cancel()
		if err == nil && len(v.Devices) > 0 {
			device.AddPlaces(s.cfg.Root, v.Devices)
			return v
		}
		if err != nil {
			notes = append(notes, fmt.Sprintf("nvidia-smi does not help: %v.", err))
			hung = errors.Is(err, errNoAnswer)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.CallTimeout, errNoAnswer)
	defer cancel()
	// Even a read of /proc may wait for the driver.
	read := make(chan device.Inventory, 1)
	go func() {
		v := device.ReadProc(s.cfg.Root)
		device.AddPlaces(s.cfg.Root, v.Devices)
		read <- v
	}()
	v := device.Inventory{Devices: []device.Device{}, Source: "none"}
	select {
	case found := <-read:
		if err := found.Check(); err != nil {
			notes = append(notes, fmt.Sprintf("What the kernel says of the GPUs makes no sense: %v.", err))
		} else if notes = append(notes, found.Notes...); len(found.Devices) > 0 {
			v = found
		}
	case <-ctx.Done():
		notes = append(notes, "The kernel does not say which GPUs there are: the driver does not answer.")
	}
	if v.Source == "none" && v.Driver == "" && len(notes) == 0 {
		notes = append(notes, "No GPUs: the kernel knows no NVIDIA driver (/proc/driver/nvidia). Install the driver if this machine has a GPU.")
	}
	v.Notes = notes
	if hung {
		return v.WithHealth(device.Unknown, "The driver does not answer.")
	}
	return v
}

// sentenceOf is an error as doctor says it.
func sentenceOf(err error) string {
	switch {
	case errors.Is(err, errHung):
		return "The inventory helper did not answer and was ended: a GPU or its driver hangs. Look at dmesg for NVRM messages; a reboot may be needed."
	case err == nil:
		return "The inventory helper ended."
	}
	return fmt.Sprintf("The inventory helper failed: %v.", err)
}
