package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/skiff-ml/skiff/runtime/process"
	"github.com/skiff-ml/skiff/server/auth"
	"github.com/skiff-ml/skiff/server/view"
)

// checkLoopback refuses what cannot work.
func (c *Config) checkLoopback() error {
	switch c.LoopbackAuth {
	case "", LoopbackUID:
	case LoopbackOff:
		if len(c.LoopbackUsers) > 0 {
			return errors.New("--loopback-user: --loopback-auth=off knows nobody by their connection; leave one of them out")
		}
	default:
		return fmt.Errorf("--loopback-auth %q: want %s or %s", c.LoopbackAuth, LoopbackUID, LoopbackOff)
	}
	if len(c.LoopbackUsers) > 0 && os.Geteuid() != 0 {
		return errors.New("--loopback-user: only a daemon that runs as root can tell which program of another user calls; " +
			"give the others the token")
	}
	_, err := c.loopbackUsers()
	return err
}

// loopbackUsers reads the list of users.
func (c *Config) loopbackUsers() (map[uint32]string, error) {
	users := map[uint32]string{}
	for _, entry := range c.LoopbackUsers {
		who, name, given := strings.Cut(entry, "=")
		if !given {
			name = auth.AdminUser
		}
		if who == "" || name == "" {
			return nil, fmt.Errorf("--loopback-user %q: want NAME or UID, as in alice, 1000 or alice=admin", entry)
		}
		id := who
		if _, err := strconv.ParseUint(who, 10, 32); err != nil {
			account, err := user.Lookup(who)
			if err != nil {
				return nil, fmt.Errorf("--loopback-user %q: %w; give a user of this machine, or a uid", entry, err)
			}
			id = account.Uid
		}
		uid, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("--loopback-user %q: %w", entry, err)
		}
		if before, twice := users[uint32(uid)]; twice && before != name {
			return nil, fmt.Errorf("--loopback-user %q: uid %d is %s already", entry, uid, before)
		}
		users[uint32(uid)] = name
	}
	return users, nil
}

// peers knows the callers on the loopback; nil where nobody is to be known so,
// or where the machine does not tell, which doctor reports.
func (d *daemon) peers() (auth.Peers, error) {
	if d.cfg.Listen == "" || d.cfg.LoopbackAuth == LoopbackOff {
		return nil, nil
	}
	users, err := d.cfg.loopbackUsers()
	if err != nil {
		return nil, err
	}
	launchers, err := filepath.EvalSymlinks(d.cfg.StateDir)
	if err != nil {
		return nil, err
	}
	loopback, err := auth.NewLoopback(auth.LoopbackConfig{
		Users: users, Launchers: filepath.Join(launchers, launcherDir), Contained: process.Contained,
	})
	if err != nil {
		d.log.Warn("callers on the loopback need the token", "error", err)
		return nil, nil
	}
	return loopback, nil
}

// loopbackCheck tells whether clients on this machine can do without the token.
func loopbackCheck(ctx context.Context) view.Check {
	check := view.Check{Name: "loopback identity", Status: view.CheckOK,
		Found: "programs of the daemon's user need no token on 127.0.0.1 and ::1"}
	if err := auth.Probe(ctx); err != nil {
		check.Status, check.Found = view.CheckMissing, err.Error()
		check.Fix = "clients on the loopback need the token until the kernel lists sockets: modprobe tcp_diag, " +
			"or allow netlink sockets (in systemd: RestrictAddressFamilies=AF_NETLINK among the others)"
	}
	return check
}
