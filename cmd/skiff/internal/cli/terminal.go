package cli

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/server"
)

// rawTerminal hands every key to the program at the other end. restore must be
// called. It fails where f is no terminal.
func rawTerminal(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	// As cfmakeraw(3) has it.
	raw := *before
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }, nil
}

// terminalSizes tells the size now and after each change, the newest only.
// stop must be called.
func terminalSizes(f *os.File) (sizes <-chan server.TerminalSize, stop func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	out, done := make(chan server.TerminalSize, 1), make(chan struct{})
	read := func() {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			select {
			case <-out:
			default:
			}
			out <- server.TerminalSize{Width: size.Col, Height: size.Row}
		}
	}
	read()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-changed:
				read()
			case <-done:
				return
			}
		}
	}()
	return out, func() {
		signal.Stop(changed)
		close(done)
		<-ended
	}
}
