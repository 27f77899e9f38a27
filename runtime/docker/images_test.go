package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func newTestImages(t *testing.T, e *fakeEngine) *images {
	t.Helper()
	if e.have == nil {
		e.have = map[string]dockerapi.Image{}
	}
	return newImages(e, filepath.Join(t.TempDir(), "config.json"))
}

func ignore(runtime.ImageProgress) {}

func TestMalformedReferences(t *testing.T) {
	i := newTestImages(t, &fakeEngine{})
	for _, ref := range []string{
		"", "../../x", "image@sha256:short", "UPPER", "a:b:c", "a b", "x:", "http://host/x", strings.Repeat("a", 10_000),
		"name:" + strings.Repeat("t", 200), "-x", "x@md5:00",
	} {
		_, err := i.prepare(t.Context(), runtime.ImageRequest{Ref: ref}, ignore)
		if !errors.Is(err, runtime.ErrImageUnavailable) || !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%.40q: %v", ref, err)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("%.40q: the error has %d bytes", ref, len(err.Error()))
		}
	}
}

func TestPullPolicies(t *testing.T) {
	local := dockerapi.Image{ID: "sha256:local"}
	pulled := dockerapi.Image{ID: "sha256:pulled"}
	fails := func(text string) func(context.Context, string) (string, error) {
		return func(context.Context, string) (string, error) {
			return `{"status":"Pulling from x"}` + "\n" + `{"errorDetail":{"message":"` + text + `"},"error":"` + text + `"}`, nil
		}
	}
	works := func(context.Context, string) (string, error) { return `{"status":"Status: Downloaded"}`, nil }
	const unreachable = "Get https://r/v2/: dial tcp: lookup r: no such host"
	for _, tt := range []struct {
		name    string
		ref     string
		policy  runtime.PullPolicy
		present bool
		stream  func(context.Context, string) (string, error)
		want    string // image id, or words of the error
		pulls   int
	}{
		{"tag present", "x:1", "", true, works, "sha256:local", 0},
		{"tag absent", "x:1", "", false, works, "sha256:pulled", 1},
		{"latest moves on", "x", "", true, works, "sha256:pulled", 1},
		{"latest, registry away", "x:latest", "", true, fails(unreachable), "sha256:local", 1},
		{"latest absent, registry away", "x:latest", "", false, fails(unreachable), "RegistryUnreachable", 1},
		{"digest present", "x@" + digestA, "", true, works, "sha256:local", 0},
		{"asked for the newest, registry away", "x:1", runtime.PullAlways, true, fails(unreachable), "RegistryUnreachable", 1},
		{"asked for the newest", "x:1", runtime.PullAlways, true, works, "sha256:pulled", 1},
		{"latest if not present", "x", runtime.PullIfNotPresent, true, works, "sha256:local", 0},
		{"never, present", "x", runtime.PullNever, true, works, "sha256:local", 0},
		{"never, absent", "x", runtime.PullNever, false, works, "NotPresent", 0},
		{"not there", "x:1", "", false, fails("manifest for x:1 not found: manifest unknown"), "(NotFound)", 1},
		{"denied", "x:1", "", false, fails("pull access denied for x, repository does not exist or may require 'docker login'"), "NotFoundOrDenied", 1},
		{"unauthorized", "x:1", "", false, fails("unauthorized: authentication required"), "(Unauthorized)", 1},
		{"certificate", "x:1", "", false, fails("x509: certificate signed by unknown authority"), "RegistryUnreachable", 1},
		{"disk", "x:1", "", false, fails("write /var/lib: no space left on device"), "DiskFull", 1},
		{"refused at once", "x:1", "", false, func(context.Context, string) (string, error) {
			return "", notFound{errors.New("manifest for x:1 not found")}
		}, "(NotFound)", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			named, err := parseRef(tt.ref)
			if err != nil {
				t.Fatal(err)
			}
			ref := named.String()
			e := &fakeEngine{have: map[string]dockerapi.Image{}, stream: tt.stream, arrive: map[string]dockerapi.Image{ref: pulled}}
			if tt.present {
				e.have[ref] = local
			}
			if strings.Contains(tt.want, "(") || !strings.HasPrefix(tt.want, "sha256:") || tt.want == "sha256:local" {
				e.arrive = nil
			}
			img, err := newTestImages(t, e).prepare(t.Context(), runtime.ImageRequest{Ref: tt.ref, Policy: tt.policy}, ignore)
			switch {
			case strings.HasPrefix(tt.want, "sha256:"):
				if err != nil || img.ID != tt.want {
					t.Errorf("got %q, %v; want %q", img.ID, err, tt.want)
				}
			case !errors.Is(err, runtime.ErrImageUnavailable) || !strings.Contains(err.Error(), tt.want):
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if len(e.pulls) != tt.pulls {
				t.Errorf("%d pulls, want %d", len(e.pulls), tt.pulls)
			}
		})
	}
}

func TestImplicitLatestIsComparedOnceInAWhile(t *testing.T) {
	e := &fakeEngine{have: map[string]dockerapi.Image{"docker.io/library/x:latest": {ID: "sha256:local"}},
		stream: func(context.Context, string) (string, error) { return "", errors.New("dial tcp: i/o timeout") }}
	i := newTestImages(t, e)
	now := time.Now()
	i.now = func() time.Time { return now }
	for range 3 {
		if _, err := i.prepare(t.Context(), runtime.ImageRequest{Ref: "x"}, ignore); err != nil {
			t.Fatal(err)
		}
	}
	if len(e.pulls) != 1 {
		t.Errorf("%d pulls of a registry that is away, want 1", len(e.pulls))
	}
	now = now.Add(refreshEvery)
	if _, err := i.prepare(t.Context(), runtime.ImageRequest{Ref: "x"}, ignore); err != nil {
		t.Fatal(err)
	}
	if len(e.pulls) != 2 {
		t.Errorf("%d pulls after %v, want 2", len(e.pulls), refreshEvery)
	}
}

func TestOnePullForMany(t *testing.T) {
	const ref = "docker.io/library/x:1"
	e := &fakeEngine{gate: make(chan struct{}), arrive: map[string]dockerapi.Image{ref: {ID: "sha256:1"}},
		stream: func(context.Context, string) (string, error) {
			return `{"status":"Downloading","id":"a","progressDetail":{"current":5,"total":10}}` + "\n" +
				`{"status":"Pull complete","id":"a","progressDetail":{}}`, nil
		}}
	i := newTestImages(t, e)
	// The first who asked leaves; the others still get their image.
	first, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := i.prepare(first, runtime.ImageRequest{Ref: "x:1"}, ignore)
		left <- err
	}()
	var all sync.WaitGroup
	var mu sync.Mutex
	var last runtime.ImageProgress
	for range 7 {
		all.Go(func() {
			_, err := i.prepare(t.Context(), runtime.ImageRequest{Ref: "x:1"}, func(p runtime.ImageProgress) {
				mu.Lock()
				defer mu.Unlock()
				last = p
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	await(t, func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		for _, f := range i.flights {
			return len(f.waiting) == 8
		}
		return false
	})
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the one who left got %v", err)
	}
	close(e.gate)
	all.Wait()
	if len(e.pulls) != 1 {
		t.Errorf("%d pulls, want 1", len(e.pulls))
	}
	if last.Current != 10 || last.Total != 10 {
		t.Errorf("the last progress is %+v", last)
	}
}

func TestPullEndsWithTheLastWhoWaits(t *testing.T) {
	e := &fakeEngine{gate: make(chan struct{})}
	i := newTestImages(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := i.prepare(ctx, runtime.ImageRequest{Ref: "x:1"}, ignore)
		done <- err
	}()
	await(t, func() bool { e.mu.Lock(); defer e.mu.Unlock(); return len(e.pulls) == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(i.flights) != 0 {
		t.Error("the pull goes on")
	}
}

// await polls a condition of a test's own making.
func await(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the condition never came true")
		}
	}
}

func TestDescribeDigest(t *testing.T) {
	named, err := parseRef("registry.example:5000/team/x:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		digests []string
		want    string
	}{
		{"of this repository", []string{"docker.io/library/y@" + digestB, "registry.example:5000/team/x@" + digestA}, digestA},
		{"of another one only", []string{"docker.io/library/y@" + digestB}, "sha256:id"},
		{"imported", nil, "sha256:id"},
		{"nonsense", []string{"<none>@<none>"}, "sha256:id"},
	} {
		img := describe(dockerapi.Image{ID: "sha256:id", RepoDigests: tt.digests}, named)
		if img.ID != "sha256:id" || img.Digest != tt.want {
			t.Errorf("%s: got %+v", tt.name, img)
		}
	}
}

func TestProgressOnlyGrows(t *testing.T) {
	stream := `{"status":"Pulling fs layer","id":"a"}
{"status":"Downloading","id":"a","progressDetail":{"current":50,"total":100}}
{"status":"Downloading","id":"b","progressDetail":{"current":10,"total":20}}
{"status":"Download complete","id":"a"}
{"status":"Extracting","id":"a","progressDetail":{"current":60,"total":100}}
{"status":"Pull complete","id":"a"}
{"status":"Pull complete","id":"b"}
{"status":"Digest: sha256:x"}`
	var seen []runtime.ImageProgress
	if err := readPull(strings.NewReader(stream), func(p runtime.ImageProgress) { seen = append(seen, p) }); err != nil {
		t.Fatal(err)
	}
	for n := 1; n < len(seen); n++ {
		if seen[n].Current < seen[n-1].Current {
			t.Errorf("progress went back: %+v", seen)
		}
	}
	if last := seen[len(seen)-1]; last.Current != 120 || last.Total != 120 {
		t.Errorf("it ends at %+v", last)
	}
	if err := readPull(strings.NewReader(`{"status":"`+strings.Repeat("x", 2*maxPullLine)), ignore); err == nil {
		t.Error("a line without end was read")
	}
	if err := readPull(strings.NewReader(`{"status":"half`), ignore); err == nil {
		t.Error("a stream that broke off is a success")
	}
}

func TestCredentialsGoToTheirHostAlone(t *testing.T) {
	secret := base64.StdEncoding.EncodeToString([]byte("user:pa:ss"))
	config := filepath.Join(t.TempDir(), "config.json")
	data, err := json.Marshal(map[string]any{
		"auths":       map[string]any{"https://index.docker.io/v1/": map[string]string{"auth": secret}, "b.example:5000": map[string]string{"identitytoken": "tok"}},
		"credHelpers": map[string]string{"helped.example": "skiff-test"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, data, 0o600); err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	helper := "#!/bin/sh\nread host\n[ \"$host\" = helped.example ] || exit 1\necho '{\"Username\":\"helped\",\"Secret\":\"s\"}'\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-skiff-test"), []byte(helper), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	i := newImages(&fakeEngine{}, config)
	request := map[string]string{"https://a.example/v2/": secret}
	for _, tt := range []struct {
		domain, user, password, token string
	}{
		{"a.example", "user", "pa:ss", ""},
		{"a.example:443", "", "", ""},
		{"evil-a.example", "", "", ""},
		{"a.example.evil", "", "", ""},
		{"docker.io", "user", "pa:ss", ""},
		{"b.example:5000", "", "", "tok"},
		{"b.example", "", "", ""},
		{"helped.example", "helped", "s", ""},
	} {
		value, err := i.auth(t.Context(), tt.domain, request)
		if err != nil {
			t.Errorf("%s: %v", tt.domain, err)
			continue
		}
		var got credentials
		if value != "" {
			raw, err := base64.URLEncoding.DecodeString(value)
			if err != nil || json.Unmarshal(raw, &got) != nil {
				t.Errorf("%s: %q is not an X-Registry-Auth value", tt.domain, value)
			}
		}
		if got.Username != tt.user || got.Password != tt.password || got.IdentityToken != tt.token {
			t.Errorf("%s gets %+v", tt.domain, got)
		}
	}
	bad := base64.StdEncoding.EncodeToString([]byte("no-colon-hunter2"))
	if _, err := i.auth(t.Context(), "a.example", map[string]string{"a.example": bad}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("malformed credentials: %v", err)
	}
}
