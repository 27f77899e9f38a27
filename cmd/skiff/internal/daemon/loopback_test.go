package daemon

import (
	"maps"
	"os"
	"strings"
	"testing"
)

func TestLoopbackFlags(t *testing.T) {
	for _, tc := range []struct {
		name  string
		auth  string
		users []string
		want  map[uint32]string
		fails string
	}{
		{name: "default", want: map[uint32]string{}},
		{name: "uid", auth: "uid", users: []string{"1000"}, want: map[uint32]string{1000: "admin"}},
		{name: "name", users: []string{"root", "1000=bob"}, want: map[uint32]string{0: "admin", 1000: "bob"}},
		{name: "twice", users: []string{"root", "0=bob"}, fails: "admin already"},
		{name: "nobody of that name", users: []string{"no-such-user"}, fails: "give a user of this machine"},
		{name: "no user", users: []string{"=bob"}, fails: "want NAME or UID"},
		{name: "no name", users: []string{"1000="}, fails: "want NAME or UID"},
		{name: "off", auth: "off", want: map[uint32]string{}},
		{name: "off with users", auth: "off", users: []string{"1000"}, fails: "leave one of them out"},
		{name: "unknown", auth: "on", fails: "want uid or off"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := Config{LoopbackAuth: tc.auth, LoopbackUsers: tc.users}
			err := cfg.checkLoopback()
			if len(tc.users) > 0 && os.Geteuid() != 0 && tc.auth != "off" {
				if err == nil || !strings.Contains(err.Error(), "runs as root") {
					t.Errorf("not root: %v", err)
				}
				return
			}
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("got %v, want %q", err, tc.fails)
				}
				return
			}
			users, _ := cfg.loopbackUsers()
			if err != nil || !maps.Equal(users, tc.want) {
				t.Errorf("got %v %v, want %v", users, err, tc.want)
			}
		})
	}
}
