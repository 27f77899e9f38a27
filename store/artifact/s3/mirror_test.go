package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
	"github.com/skiff-ml/skiff/store/artifact/s3/miniotest"
)

const space = "default"

// bench is a mirror over a store and a repository of its own.
type bench struct {
	*Mirror
	t     *testing.T
	store *store.Store
	dir   string
}

func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "skiff.db"), KeyPath: filepath.Join(dir, "key"), Kinds: []store.Kind{
		{Name: configMapsKind, New: func() core.Object { return new(core.ConfigMap) }},
		{Name: secretsKind, New: func() core.Object { return new(core.Secret) }, Sealed: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: s, dir: filepath.Join(dir, "artifacts")}
	b.open(change)
	t.Cleanup(func() {
		b.close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) open(change func(*Config)) {
	b.t.Helper()
	repository, err := artifact.Open(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := Config{Repository: repository, Store: b.store}
	if change != nil {
		change(&cfg)
	}
	if b.Mirror, err = NewMirror(cfg); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) close() {
	if err := errors.Join(b.Mirror.Close(), b.Repository.Close()); err != nil {
		b.t.Error(err)
	}
}

// put writes objects to the store.
func (b *bench) put(objects ...core.Object) {
	b.t.Helper()
	for _, obj := range objects {
		kind := configMapsKind
		if _, is := obj.(*core.Secret); is {
			kind = secretsKind
		}
		if _, err := b.store.Commit(b.t.Context(), store.Op{Verb: store.Put, Kind: kind, Object: obj}); err != nil {
			b.t.Fatal(err)
		}
	}
}

func launcher(providers string) *core.ConfigMap {
	return &core.ConfigMap{ObjectMeta: core.ObjectMeta{Name: ConfigMapName, Namespace: space}, Data: map[string]string{providersKey: providers}}
}

func secret(accessKey, secretKey string) *core.Secret {
	return &core.Secret{ObjectMeta: core.ObjectMeta{Name: "keys", Namespace: space},
		Data: map[string][]byte{"accesskey": []byte(accessKey), "secretkey": []byte(secretKey + "\n")}}
}

// at has the buckets of s3:// at a server.
func (b *bench) at(host string) {
	b.put(launcher(miniotest.Providers("s3", host, "keys")), secret(miniotest.AccessKey, miniotest.SecretKey))
}

// make writes an artifact as a step does.
func (b *bench) make(uri string, files map[string]string) {
	b.t.Helper()
	folder := uri[:strings.LastIndexByte(uri, '/')]
	if err := b.PrepareOutput(space, folder); err != nil {
		b.t.Fatal(err)
	}
	at, err := b.Locate(space, uri)
	if err != nil {
		b.t.Fatal(err)
	}
	for path, text := range files {
		file := filepath.Join(at.HostPath, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			b.t.Fatal(err)
		}
	}
	if _, err := b.Commit(b.t.Context(), space, uri); err != nil {
		b.t.Fatal(err)
	}
}

// contents reads an artifact from the repository.
func (b *bench) contents(uri string) map[string]string {
	b.t.Helper()
	files, _, err := b.Files(b.t.Context(), space, uri)
	if err != nil {
		b.t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range files {
		open, err := b.Mirror.Open(space, uri, f.Path)
		if err != nil {
			b.t.Fatal(err)
		}
		data, err := io.ReadAll(open)
		if err = errors.Join(err, open.Close()); err != nil {
			b.t.Fatal(err)
		}
		got[f.Path] = string(data)
	}
	return got
}

func (b *bench) deliver(uri string) {
	b.t.Helper()
	if _, err := b.Deliver(b.t.Context(), space, uri, nil); err != nil {
		b.t.Fatalf("deliver: %v", err)
	}
}

func (b *bench) fetch(uri string) {
	b.t.Helper()
	if err := b.Fetch(b.t.Context(), space, uri); err != nil {
		b.t.Fatalf("fetch: %v", err)
	}
}

const root = "s3://" + miniotest.Bucket + "/root"

func TestDeliverAndFetch(t *testing.T) {
	server := miniotest.Start(t)
	b := newBench(t, nil)
	b.at(server.Host)
	for name, files := range map[string]map[string]string{
		"file": {"": "weights"},
		"tree": {"a": "1", "sub/b": "2"},
	} {
		uri := root + "/" + name
		b.make(uri, files)
		b.deliver(uri)
		// Another machine, which has the same objects and nothing else.
		other := newBench(t, nil)
		other.at(server.Host)
		other.fetch(uri)
		if diff := cmp.Diff(files, other.contents(uri)); diff != "" {
			t.Errorf("%s on another machine (-want +got):\n%s", name, diff)
		}
		mine, err := b.Digest(t.Context(), space, uri)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := other.Digest(t.Context(), space, uri)
		if err != nil || mine != theirs {
			t.Errorf("%s: digests %+v and %+v, %v", name, mine, theirs, err)
		}
		if version, err := other.Version(t.Context(), space, uri); err != nil || (name == "file" && version != mine.Digest) {
			t.Errorf("%s: version %s, %v; its digest is %s", name, version, err, mine.Digest)
		}
	}
	if diff := cmp.Diff([]string{"root/file", "root/tree/a", "root/tree/sub/b"}, server.Keys("root")); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	object, err := server.Admin.StatObject(t.Context(), miniotest.Bucket, "root/file", minio.StatObjectOptions{})
	if sum := object.UserMetadata[shaMetadata]; err != nil || "sha256:"+sum != digestOf(t, b, root+"/file") {
		t.Errorf("the object's metadata has the hash %q, %v", sum, err)
	}
}

func digestOf(t *testing.T, b *bench, uri string) string {
	t.Helper()
	d, err := b.Digest(t.Context(), space, uri)
	if err != nil {
		t.Fatal(err)
	}
	return d.Digest
}

// TestNoSecondDownload: what was made here, or fetched and not changed since, is
// not downloaded, and what is made here is not even asked for.
func TestNoSecondDownload(t *testing.T) {
	server := miniotest.Start(t)
	proxy := miniotest.NewProxy(t, server.Host)
	var down atomic.Int64
	proxy.Tamper(func(d miniotest.Direction, _ int64, p []byte) bool {
		if d == miniotest.Down {
			down.Add(int64(len(p)))
		}
		return true
	})
	b := newBench(t, nil)
	b.at(proxy.Host)
	uri := root + "/x"
	big := strings.Repeat("0123456789abcdef", 1<<16)
	b.make(uri, map[string]string{"": big})
	b.deliver(uri)
	down.Store(0)
	b.fetch(uri)
	if n := down.Load(); n != 0 {
		t.Errorf("what was made here was asked for: %d bytes", n)
	}
	other := newBench(t, nil)
	other.at(proxy.Host)
	other.fetch(uri)
	if n := down.Swap(0); n < int64(len(big)) {
		t.Errorf("%d bytes came down: the test proves nothing", n)
	}
	other.fetch(uri)
	if n := down.Swap(0); n == 0 || n > 1<<16 {
		t.Errorf("to see that nothing changed took %d bytes", n)
	}
	// It remembers over a restart, and sees a change.
	other.close()
	other.open(nil)
	other.fetch(uri)
	if n := down.Load(); n > 1<<16 {
		t.Errorf("after a restart it took %d bytes", n)
	}
	if _, err := server.Admin.PutObject(t.Context(), miniotest.Bucket, "root/x", strings.NewReader("new"), 3, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	other.fetch(uri)
	if diff := cmp.Diff(map[string]string{"": "new"}, other.contents(uri)); diff != "" {
		t.Errorf("after a change (-want +got):\n%s", diff)
	}
}

// TestSameContents: what has the same hash is copied here, unless it is no longer
// what it was, or another namespace's.
func TestSameContents(t *testing.T) {
	server := miniotest.Start(t)
	proxy := miniotest.NewProxy(t, server.Host)
	var down atomic.Int64
	proxy.Tamper(func(d miniotest.Direction, _ int64, p []byte) bool {
		if d == miniotest.Down {
			down.Add(int64(len(p)))
		}
		return true
	})
	b := newBench(t, nil)
	b.at(proxy.Host)
	big := map[string]string{"": strings.Repeat("0123456789abcdef", 1<<16)}
	b.make(root+"/x", big)
	b.deliver(root + "/x")
	for _, name := range []string{"y", "z"} {
		_, err := server.Admin.CopyObject(t.Context(), minio.CopyDestOptions{Bucket: miniotest.Bucket, Object: "root/" + name},
			minio.CopySrcOptions{Bucket: miniotest.Bucket, Object: "root/x"})
		if err != nil {
			t.Fatal(err)
		}
	}
	down.Store(0)
	b.fetch(root + "/y")
	if n := down.Load(); n > 1<<16 {
		t.Errorf("to copy it took %d bytes", n)
	}
	for _, name := range []string{"x", "y"} {
		at, err := b.Locate(space, root+"/"+name)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chmod(at.HostPath, 0o644), os.WriteFile(at.HostPath, []byte("rotten"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	b.fetch(root + "/z")
	if diff := cmp.Diff(big, b.contents(root+"/z")); diff != "" {
		t.Error("what was copied is rotten")
	}
	for key := range b.records.all {
		if _, found := b.records.same(Key{"other", key.URI}, b.records.all[key].Version); found {
			t.Errorf("%s is another namespace's, too", key.URI)
		}
	}
}

// TestWithoutSettings: everything stays here, and nothing is copied.
func TestWithoutSettings(t *testing.T) {
	b := newBench(t, nil)
	for _, scheme := range []string{"minio", "s3", "gs"} {
		uri := scheme + "://bucket/x"
		b.make(uri, map[string]string{"": "x"})
		b.deliver(uri)
		b.fetch(uri)
		if _, kept, err := b.Endpoint(t.Context(), space, uri); kept || err != nil {
			t.Errorf("%s is kept elsewhere: %v, %v", uri, kept, err)
		}
		err := b.Fetch(t.Context(), space, scheme+"://bucket/none")
		if want := scheme == "minio"; errors.Is(err, artifact.ErrNotFound) != want || errors.Is(err, ErrSettings) == want {
			t.Errorf("%s: nothing there: %v", scheme, err)
		}
		if scheme != "minio" {
			for _, want := range []string{`"bucket"`, ConfigMapName, "providers." + scheme, "secret", space} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		}
	}
	if n := len(b.records.all); n != 0 {
		t.Errorf("%d records were kept", n)
	}
}

func TestCredentials(t *testing.T) {
	server := miniotest.Start(t)
	lent := Credentials{AccessKey: miniotest.AccessKey, SecretKey: miniotest.SecretKey}
	fromEnv := fmt.Sprintf("s3: {default: {endpoint: %q, credentials: {fromEnv: true}}}", "http://"+server.Host)
	for _, tt := range []struct {
		name    string
		objects []core.Object
		env     *Credentials
		is      error
		says    []string
	}{
		{"no secret", []core.Object{launcher(miniotest.Providers("s3", server.Host, "keys"))}, nil, ErrSettings, []string{"secret keys", "accesskey", "secretkey", space}},
		{"empty secret", []core.Object{launcher(miniotest.Providers("s3", server.Host, "keys")), secret("", "")}, nil, ErrSettings, []string{"secret keys", "accesskey"}},
		{"wrong secret", []core.Object{launcher(miniotest.Providers("s3", server.Host, "keys")), secret(miniotest.AccessKey, "hush-hush")}, nil, ErrDenied, []string{"secret keys", `"skiff"`, server.Host}},
		{"not lent", []core.Object{launcher(fromEnv)}, nil, ErrSettings, []string{"--s3-from-env"}},
		{"lent", []core.Object{launcher(fromEnv)}, &lent, nil, nil},
		{"no map", []core.Object{launcher("- hello")}, nil, ErrSettings, []string{providersKey}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, func(cfg *Config) { cfg.Environment = tt.env })
			uri := root + "/x"
			b.make(uri, map[string]string{"": "x"})
			b.put(tt.objects...)
			_, err := b.Deliver(t.Context(), space, uri, nil)
			if !errors.Is(err, tt.is) || (err == nil) != (tt.is == nil) {
				t.Fatalf("%v, want %v", err, tt.is)
			}
			for _, want := range tt.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if err != nil && (strings.Contains(err.Error(), "hush-hush") || strings.Contains(err.Error(), miniotest.AccessKey)) {
				t.Errorf("a credential is in: %v", err)
			}
		})
	}
}

// TestTrim: what a bucket has as well goes, longest unused first; what is held or
// in use, and what no bucket has, stays.
func TestTrim(t *testing.T) {
	server := miniotest.Start(t)
	inUse := map[Key]bool{}
	bounded := func(cfg *Config) {
		cfg.CacheBytes = 250
		cfg.InUse = func(context.Context) (map[Key]bool, error) { return inUse, nil }
	}
	b := newBench(t, bounded)
	b.at(server.Host)
	hundred := map[string]string{"": strings.Repeat("x", 100)}
	here := func() []string {
		var names []string
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			if b.Exists(space, root+"/"+name) {
				names = append(names, name)
			}
		}
		return names
	}
	add := func(name string) {
		b.make(root+"/"+name, hundred)
		b.deliver(root + "/" + name)
	}
	b.make("minio://local/x", hundred)
	add("a")
	add("b")
	b.fetch(root + "/a") // used again
	add("c")
	if diff := cmp.Diff([]string{"a", "c"}, here()); diff != "" {
		t.Errorf("after three of two (-want +got):\n%s", diff)
	}
	release := b.Hold(space, root+"/a")
	inUse[Key{space, root + "/c"}] = true
	add("d")
	if diff := cmp.Diff([]string{"a", "c", "d"}, here()); diff != "" {
		t.Errorf("held and in use (-want +got):\n%s", diff)
	}
	release()
	b.fetch(root + "/b") // comes back, and d or a goes
	if diff := cmp.Diff([]string{"b", "c"}, here()); diff != "" {
		t.Errorf("after the release (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(hundred, b.contents(root+"/b")); diff != "" {
		t.Errorf("what came back (-want +got):\n%s", diff)
	}
	// Without its settings a bucket cannot be asked: the copies are all there is.
	b.put(launcher(""))
	clear(inUse)
	if err := b.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.trim(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"b", "c"}, here()); diff != "" {
		t.Errorf("without settings (-want +got):\n%s", diff)
	}
	if !b.Exists(space, "minio://local/x") {
		t.Error("what only this machine has is gone")
	}
	b.at(server.Host)
	b.close()
	b.open(bounded)
	if err := b.trim(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if left := here(); len(left) != 0 || len(b.records.all) != 0 {
		t.Errorf("left: %v, records %v", left, slices.Collect(maps.Keys(b.records.all)))
	}
}

// TestHostileBucket: names that a store gives do not lead out of the artifact,
// and one that is a file and a folder is neither. MinIO has no such names, so a
// server that answers with them stands in for the stores that do.
func TestHostileBucket(t *testing.T) {
	for name, keys := range map[string][]string{
		"climbing": {"root/h/../../evil"}, "absolute": {"root/h//etc/passwd"}, "dots": {"root/h/./x"}, "control": {"root/h/x&#x0;"},
		"long": {"root/h/" + strings.Repeat("x", 256)}, "file and folder": {"root/h/a", "root/h/a/b"}, "twice": {"root/h/a", "root/h/a"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodHead:
					w.WriteHeader(http.StatusNotFound)
				case r.URL.Query().Has("list-type"):
					fmt.Fprint(w, `<?xml version="1.0"?><ListBucketResult><Name>skiff</Name><IsTruncated>false</IsTruncated>`)
					for _, key := range keys {
						fmt.Fprintf(w, "<Contents><Key>%s</Key><Size>1</Size></Contents>", key)
					}
					fmt.Fprint(w, "</ListBucketResult>")
				default:
					w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
					fmt.Fprint(w, "x")
				}
			}))
			defer server.Close()
			b := newBench(t, nil)
			b.put(launcher(miniotest.Providers("s3", server.URL, "keys")+"    maxRetries: 0\n"), secret("a", "s"))
			err := b.Fetch(t.Context(), space, root+"/h")
			if err == nil || b.Exists(space, root+"/h") {
				t.Errorf("fetched: %v", err)
			}
			if name != "control" && !errors.Is(err, artifact.ErrInvalid) {
				t.Errorf("%v, want ErrInvalid", err)
			}
			if left, err := os.ReadDir(filepath.Join(b.dir, ".incoming")); len(left) > 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
		})
	}
}
