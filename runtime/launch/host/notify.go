package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is watched in a control folder. The close of the lock is a launcher's
// death; the renames are its socket and its record.
const (
	lifeEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_DELETE_SELF | unix.IN_ONLYDIR
	logEvents  = lifeEvents | unix.IN_MODIFY
)

// notifier shares one inotify instance among all folders: a user may have only
// 128 instances, but many thousands of watches.
type notifier struct {
	mask uint32

	mu     sync.Mutex
	file   *os.File // nil before the first use and after close
	fd     int      // of file; asking the file for it would make it block
	closed bool
	subs   map[int]map[*subscription]struct{} // by watch descriptor
	done   chan struct{}
}

// subscription tells that something changed in one folder. C holds at most one
// token, so a slow reader costs nothing.
type subscription struct {
	C  chan struct{}
	wd int
	n  *notifier
}

// subscribe starts watching an open folder.
func (n *notifier) subscribe(dir *os.File) (*subscription, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.open(); err != nil {
		return nil, err
	}
	// By descriptor: the path may have been replaced since it was checked.
	path := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd()))
	wd, err := unix.InotifyAddWatch(n.fd, path, n.mask)
	if errors.Is(err, unix.ENOSPC) {
		return nil, fmt.Errorf("watch %s: no inotify watches are left; raise fs.inotify.max_user_watches: %w", dir.Name(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir.Name(), err)
	}
	s := &subscription{C: make(chan struct{}, 1), wd: wd, n: n}
	if n.subs[wd] == nil {
		n.subs[wd] = map[*subscription]struct{}{}
	}
	n.subs[wd][s] = struct{}{}
	return s, nil
}

// open makes the instance at the first use.
func (n *notifier) open() error {
	if n.closed {
		return ErrClosed
	}
	if n.file != nil {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch control folders: %w; raise fs.inotify.max_user_instances", err)
	}
	n.file, n.fd = os.NewFile(uintptr(fd), "inotify"), fd
	n.subs = map[int]map[*subscription]struct{}{}
	n.done = make(chan struct{})
	go n.read(n.file)
	return nil
}

// cancel ends the subscription.
func (s *subscription) cancel() {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	subs := s.n.subs[s.wd]
	delete(subs, s)
	if len(subs) == 0 && s.n.file != nil {
		delete(s.n.subs, s.wd)
		_, _ = unix.InotifyRmWatch(s.n.fd, uint32(s.wd)) // A descriptor is positive.
	}
}

func (s *subscription) wake() {
	select {
	case s.C <- struct{}{}:
	default:
	}
}

// read distributes events until the instance is closed.
func (n *notifier) read(f *os.File) {
	defer close(n.done)
	buf := make([]byte, 64<<10)
	for {
		size, err := f.Read(buf)
		if err != nil {
			return
		}
		n.dispatch(buf[:size])
	}
}

func (n *notifier) dispatch(buf []byte) {
	const header = unix.SizeofInotifyEvent
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(buf) >= header {
		wd := int(int32(binary.NativeEndian.Uint32(buf[unsafe.Offsetof(unix.InotifyEvent{}.Wd):]))) // The kernel's own field.
		mask := binary.NativeEndian.Uint32(buf[unsafe.Offsetof(unix.InotifyEvent{}.Mask):])
		size := binary.NativeEndian.Uint32(buf[unsafe.Offsetof(unix.InotifyEvent{}.Len):])
		buf = buf[min(len(buf), header+int(size)):]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			// Events were lost, nobody knows whose.
			for _, subs := range n.subs {
				wakeAll(subs)
			}
			continue
		}
		wakeAll(n.subs[wd])
	}
}

func wakeAll(subs map[*subscription]struct{}) {
	for s := range subs {
		s.wake()
	}
}

// close ends the instance and its goroutine. Subscriptions fall silent.
func (n *notifier) close() error {
	n.mu.Lock()
	f, done := n.file, n.done
	n.file, n.closed = nil, true
	n.mu.Unlock()
	if f == nil {
		return nil
	}
	err := f.Close()
	<-done
	return err
}
