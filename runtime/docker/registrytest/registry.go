// Package registrytest runs a real image registry for tests: Debian's
// docker-registry on the loopback interface, which wants a password.
package registrytest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The registry's one user. The hash is bcrypt's, of the least cost.
const (
	User     = "skiff"
	Password = "let-me-in"
	hash     = "$2a$04$y/AIhGQPynYxppaPxjEjCumWnj/czc7Go.x10qEsC1JWJOdCzW5cS"
)

// patience is how long a registry may take until it answers.
const patience = 30 * time.Second

// Registry is one that runs. It ends with the test.
type Registry struct {
	// Host is HOST:PORT.
	Host string
	// Config is a folder with a docker config.json that knows the password.
	Config string

	t   *testing.T
	cmd *exec.Cmd
}

// Start runs a registry and returns when it answers. A test is skipped where
// the program is not installed; `make test` installs it where it may.
func Start(t *testing.T) *Registry {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed (Debian's package of that name)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reg := &Registry{t: t, Host: l.Addr().String(), Config: t.TempDir()}
	_ = l.Close() // The port is the registry's in a moment.
	dir := t.TempDir()
	config := fmt.Sprintf(`version: 0.1
log: {level: error}
storage:
  filesystem: {rootdirectory: %[1]s/data}
  delete: {enabled: true}
http: {addr: %[2]s}
auth:
  htpasswd: {realm: test, path: %[1]s/htpasswd}
`, dir, reg.Host)
	for path, text := range map[string]string{
		filepath.Join(dir, "config.yml"):         config,
		filepath.Join(dir, "htpasswd"):           User + ":" + hash + "\n",
		filepath.Join(reg.Config, "config.json"): DockerConfig(reg.Host, Password),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reg.cmd = exec.CommandContext(t.Context(), program, "serve", filepath.Join(dir, "config.yml"))
	if err := reg.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reg.Stop)
	reg.await()
	return reg
}

func (reg *Registry) await() {
	reg.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		req, err := http.NewRequestWithContext(reg.t.Context(), http.MethodGet, "http://"+reg.Host+"/v2/", nil)
		if err != nil {
			reg.t.Fatal(err)
		}
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			reg.t.Fatal("the registry does not answer")
		}
	}
}

// Stop ends the registry; it may be called twice.
func (reg *Registry) Stop() {
	if reg.cmd.ProcessState == nil {
		_ = reg.cmd.Process.Kill()
		_ = reg.cmd.Wait() // It was killed.
	}
}

// Basic is what a docker config keeps of a user and a password.
func Basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// DockerConfig is a docker config.json with the registry's user and a password.
func DockerConfig(host, password string) string {
	config, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"auth": Basic(User, password)}}})
	if err != nil {
		panic(err) // strings alone
	}
	return string(config)
}
