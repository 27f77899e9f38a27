package recurring

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Alarm wakes its owner at a time of the wall clock, and whenever that clock is
// set. Timers of package time do neither: they count time in which the machine is
// awake.
type Alarm interface {
	// Set replaces what was set before; the zero time means never. Where the clock
	// has passed the time already, C receives at once.
	Set(at time.Time) error
	// C receives when the time may have come: when it has, and when the clock was
	// set or the machine has slept. One value may stand for several reasons.
	C() <-chan struct{}
	Close() error
}

// clockAlarm is the kernel's timer on the wall clock.
type clockAlarm struct {
	file *os.File
	raw  syscall.RawConn
	c    chan struct{}
	done chan struct{} // closed after the last read
}

var _ Alarm = (*clockAlarm)(nil)

// NewAlarm is an alarm of this machine's clock. The caller closes it.
func NewAlarm() (Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer on the wall clock: %w", err)
	}
	file := os.NewFile(uintptr(fd), "timerfd")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a timer on the wall clock: %w", err), file.Close())
	}
	a := &clockAlarm{file: file, raw: raw, c: make(chan struct{}, 1), done: make(chan struct{})}
	go a.follow()
	return a, nil
}

// follow passes on what the kernel tells, until Close.
func (a *clockAlarm) follow() {
	defer close(a.done)
	var expirations [8]byte
	for {
		_, err := a.file.Read(expirations[:])
		// ECANCELED is how the kernel says that the clock was set.
		if err != nil && !errors.Is(err, unix.ECANCELED) {
			return // closed
		}
		select {
		case a.c <- struct{}{}:
		default:
		}
	}
}

// Set implements Alarm.
func (a *clockAlarm) Set(at time.Time) error {
	var spec unix.ItimerSpec // zero disarms
	flags := unix.TFD_TIMER_ABSTIME
	if !at.IsZero() {
		// A time before 1970 would disarm it, too; any that has passed is as good.
		seconds := max(at.Unix(), 1)
		spec.Value = unix.NsecToTimespec(int64(at.Nanosecond()))
		spec.Value.Sec = seconds
		flags |= unix.TFD_TIMER_CANCEL_ON_SET
	}
	var failed error
	err := a.raw.Control(func(fd uintptr) {
		failed = unix.TimerfdSettime(int(fd), flags, &spec, nil)
		if errors.Is(failed, unix.EINVAL) {
			// Kernels in user space may know the timer and not the news of a new clock.
			failed = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, &spec, nil)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("set the timer on the wall clock to %s: %w", at, err)
	}
	return nil
}

// C implements Alarm.
func (a *clockAlarm) C() <-chan struct{} { return a.c }

// Close implements Alarm.
func (a *clockAlarm) Close() error {
	err := a.file.Close()
	<-a.done
	return err
}
