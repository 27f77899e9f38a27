package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/store/artifact"
	"github.com/skiff-ml/skiff/store/artifact/s3/miniotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is the size of parts in these tests: S3's least.
const small = 5 << 20

// newClient speaks to a server, or to a proxy before one.
func newClient(t *testing.T, host string) *Client {
	t.Helper()
	place := Place{Scheme: "s3", Bucket: miniotest.Bucket, Endpoint: host, PathStyle: true, Retries: 2}
	c, err := dial(place, Credentials{AccessKey: miniotest.AccessKey, SecretKey: miniotest.SecretKey}, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c.part = small
	t.Cleanup(c.Close)
	return c
}

// folder is an artifact in memory: contents by path.
type folder map[string][]byte

func (f folder) Files(context.Context) (files []artifact.Member, dir bool, err error) {
	for path, data := range f {
		files = append(files, artifact.Member{Path: path, Size: int64(len(data))})
	}
	_, single := f[""]
	return files, !single, nil
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

func (f folder) Open(path string) (File, error) { return memory{bytes.NewReader(f[path])}, nil }

// taken is a sink.
type taken struct{ dir string }

func (s *taken) Create(path string) (SinkFile, error) {
	if path == "" {
		path = "artifact"
	}
	at := filepath.Join(s.dir, path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return nil, err
	}
	return os.Create(at)
}

// noise is data that repeats nowhere.
func noise(size int) []byte {
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = source.Read(data) // it never fails
	return data
}

// roundTrip uploads and downloads and compares.
func roundTrip(t *testing.T, c *Client, key string, source folder) *Content {
	t.Helper()
	up, err := c.Upload(t.Context(), "", miniotest.Bucket, key, source, nil)
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	got := download(t, c, key)
	if len(got) != len(source) {
		t.Errorf("%d files came back, want %d", len(got), len(source))
	}
	for path, data := range source {
		if !bytes.Equal(got[path], data) {
			t.Errorf("%q came back with %d bytes that are not the %d sent", path, len(got[path]), len(data))
		}
	}
	return up
}

func download(t *testing.T, c *Client, key string) folder {
	t.Helper()
	found, err := c.Look(t.Context(), miniotest.Bucket, key)
	if err != nil {
		t.Fatalf("look: %v", err)
	}
	sink := &taken{dir: t.TempDir()}
	if err := c.Download(t.Context(), found, sink); err != nil {
		t.Fatalf("download: %v", err)
	}
	got := folder{}
	for _, o := range found.objects {
		path := o.path
		if path == "" {
			path = "artifact"
		}
		data, err := os.ReadFile(filepath.Join(sink.dir, path))
		if err != nil {
			t.Fatal(err)
		}
		got[o.path] = data
	}
	return got
}

func TestRoundTrip(t *testing.T) {
	server := miniotest.Start(t)
	c := newClient(t, server.Host)
	for name, source := range map[string]folder{
		"file":  {"": []byte("hello")},
		"empty": {"": {}},
		"parts": {"": noise(2*small + 17)},
		"tree":  {"a": []byte("1"), "sub/b": []byte("2"), "sub/deep/ü #%?.txt": []byte("3"), "big": noise(small + 1), "none": {}},
	} {
		t.Run(name, func(t *testing.T) {
			up := roundTrip(t, c, "trip/"+name, source)
			var size int64
			for _, data := range source {
				size += int64(len(data))
			}
			if up.Size != size || up.Files != int64(len(source)) || up.Dir != (name == "tree") {
				t.Errorf("uploaded %+v", up)
			}
			found, err := c.Look(t.Context(), miniotest.Bucket, "trip/"+name)
			if err != nil || found.Version != up.Version {
				t.Errorf("after the upload there is version %q, %v; want %q", found.Version, err, up.Version)
			}
		})
	}
	if _, err := c.Look(t.Context(), miniotest.Bucket, "trip/fil"); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("part of a name: %v, want not found", err)
	}
	if _, err := c.Look(t.Context(), "no-such-bucket", "x"); !errors.Is(err, artifact.ErrNotFound) || !strings.Contains(err.Error(), "no such bucket") {
		t.Errorf("no bucket: %v", err)
	}
	if diff := cmp.Diff([]string{"trip/tree/a", "trip/tree/big", "trip/tree/none", "trip/tree/sub/b", "trip/tree/sub/deep/ü #%?.txt"}, server.Keys("trip/tree")); diff != "" {
		t.Errorf("a folder's objects (-want +got):\n%s", diff)
	}
}

// TestForeign reads what others put into a bucket, without hashes of ours.
func TestForeign(t *testing.T) {
	server := miniotest.Start(t)
	c := newClient(t, server.Host)
	data := noise(small + 100)
	for key, options := range map[string]minio.PutObjectOptions{
		"foreign/plain":    {},
		"foreign/parts":    {PartSize: small},
		"foreign/checksum": {Checksum: minio.ChecksumCRC32C, DisableMultipart: true},
	} {
		_, err := server.Admin.PutObject(t.Context(), miniotest.Bucket, key, bytes.NewReader(data), int64(len(data)), options)
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, got := range download(t, c, "foreign") {
		if !bytes.Equal(got, data) {
			t.Errorf("%s came with %d other bytes", path, len(got))
		}
	}
}

func TestDenied(t *testing.T) {
	server := miniotest.Start(t)
	for name, keys := range map[string]Credentials{
		"wrong secret": {miniotest.AccessKey, "not-" + miniotest.SecretKey, ""},
		"nobody":       {},
		"unknown":      {"unknown-access-key", "some-secret", ""},
	} {
		c, err := Dial(Place{Endpoint: server.Host, PathStyle: true}, keys)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Upload(t.Context(), "", miniotest.Bucket, "x", folder{"": []byte("x")}, nil)
		if !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v, want ErrDenied", name, err)
		}
		for _, secret := range []string{keys.AccessKey, keys.SecretKey} {
			if secret != "" && strings.Contains(fmt.Sprint(err), secret) {
				t.Errorf("%s: the error holds a credential: %v", name, err)
			}
		}
	}
}

// TestDownloadOverABadNetwork: what is cut short goes on, what is changed is seen
// and fetched again, what stays wrong fails with the reason.
func TestDownloadOverABadNetwork(t *testing.T) {
	server := miniotest.Start(t)
	data := noise(small - 1)
	if _, err := newClient(t, server.Host).Upload(t.Context(), "", miniotest.Bucket, "x", folder{"": data}, nil); err != nil {
		t.Fatal(err)
	}
	const late = 1 << 20 // within the body, whatever the header's length
	for _, tt := range []struct {
		name   string
		tamper func(tries int64, p []byte) bool // at the first piece beyond late
		want   error
	}{
		{"cut once", func(n int64, _ []byte) bool { return n > 1 }, nil},
		{"cut always", func(int64, []byte) bool { return false }, ErrAway},
		{"changed once", func(n int64, p []byte) bool { p[0] ^= byte(1 / n); return true }, nil},
		{"changed always", func(_ int64, p []byte) bool { p[0] ^= 1; return true }, ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := miniotest.NewProxy(t, server.Host)
			c := newClient(t, proxy.Host)
			found, err := c.Look(t.Context(), miniotest.Bucket, "x")
			if err != nil {
				t.Fatal(err)
			}
			var tries atomic.Int64
			proxy.Tamper(func(d miniotest.Direction, passed int64, p []byte) bool {
				if d != miniotest.Down || passed/late == (passed+int64(len(p)))/late {
					return true
				}
				return tt.tamper(tries.Add(1), p)
			})
			sink := &taken{dir: t.TempDir()}
			err = c.Download(t.Context(), found, sink)
			if !errors.Is(err, tt.want) {
				t.Fatalf("download: %v, want %v", err, tt.want)
			}
			if tries.Load() == 0 {
				t.Error("nothing was tampered with: the test proves nothing")
			}
			if err != nil {
				if !strings.Contains(err.Error(), proxy.Host) {
					t.Errorf("the error does not name the endpoint: %v", err)
				}
				return
			}
			got, err := os.ReadFile(filepath.Join(sink.dir, "artifact"))
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes arrived, %v; they are not the %d sent", len(got), err, len(data))
			}
		})
	}
}

// TestHang: a store that goes silent in the middle is away, not waited for.
func TestHang(t *testing.T) {
	server := miniotest.Start(t)
	if _, err := newClient(t, server.Host).Upload(t.Context(), "", miniotest.Bucket, "x", folder{"": noise(small - 1)}, nil); err != nil {
		t.Fatal(err)
	}
	proxy := miniotest.NewProxy(t, server.Host)
	release := make(chan struct{})
	place := Place{Endpoint: proxy.Host, PathStyle: true}
	c, err := dial(place, Credentials{AccessKey: miniotest.AccessKey, SecretKey: miniotest.SecretKey}, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	found, err := c.Look(t.Context(), miniotest.Bucket, "x")
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	proxy.Tamper(func(d miniotest.Direction, passed int64, _ []byte) bool {
		if d == miniotest.Down && passed > 1<<20 {
			once.Do(func() { <-release })
		}
		return true
	})
	err = c.Download(t.Context(), found, &taken{dir: t.TempDir()})
	close(release)
	if !errors.Is(err, ErrAway) {
		t.Errorf("download: %v, want ErrAway", err)
	}
}

// TestUploadOverABadNetwork: a change on the way is refused by the store itself.
func TestUploadOverABadNetwork(t *testing.T) {
	server := miniotest.Start(t)
	proxy := miniotest.NewProxy(t, server.Host)
	c := newClient(t, proxy.Host)
	data := noise(2*small + 5)
	var changed atomic.Int64
	proxy.Tamper(func(d miniotest.Direction, passed int64, p []byte) bool {
		if d == miniotest.Up && passed > 1<<20 && changed.Add(1) == 1 {
			p[len(p)-1] ^= 1
		}
		return true
	})
	roundTrip(t, c, "mended", folder{"": data})
	if changed.Load() == 0 {
		t.Error("nothing was tampered with: the test proves nothing")
	}
	proxy.Tamper(func(d miniotest.Direction, passed int64, p []byte) bool {
		if d == miniotest.Up && passed > 1<<20 {
			p[len(p)-1] ^= 1
		}
		return true
	})
	if _, err := c.Upload(t.Context(), "", miniotest.Bucket, "spoilt", folder{"": data}, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("upload: %v, want ErrCorrupt", err)
	}
	if keys := server.Keys("spoilt"); len(keys) != 0 {
		t.Errorf("the bucket has %v", keys)
	}
}

// TestResume kills the server in the middle of a multipart upload: the next
// call sends what is not there, and no more.
func TestResume(t *testing.T) {
	server := miniotest.Start(t)
	proxy := miniotest.NewProxy(t, server.Host)
	c := newClient(t, proxy.Host)
	data := noise(6*small + 5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := c.Upload(ctx, "", miniotest.Bucket, "big", folder{"": data}, func(done, total int64) {
		if total != int64(len(data)) {
			t.Errorf("the total is %d", total)
		}
		if done >= 2*small {
			server.Kill()
		}
	})
	if !errors.Is(err, ErrAway) {
		t.Fatalf("upload without a server: %v, want ErrAway", err)
	}
	server.Run()
	parts, err := server.Parts("big")
	if err != nil || parts < 2 {
		t.Fatalf("the server kept %d parts, %v", parts, err)
	}
	var sent atomic.Int64
	proxy.Tamper(func(d miniotest.Direction, _ int64, p []byte) bool {
		if d == miniotest.Up {
			sent.Add(int64(len(p)))
		}
		return true
	})
	roundTrip(t, c, "big", folder{"": data})
	if most := int64(len(data) - 2*small + 1<<20); sent.Load() > most {
		t.Errorf("%d bytes were sent again, at most %d were missing", sent.Load(), most)
	}
	if parts, err := server.Parts("big"); err != nil || parts != 0 {
		t.Errorf("%d parts are left over, %v", parts, err)
	}
	sent.Store(0)
	if _, err := c.Upload(t.Context(), "", miniotest.Bucket, "big", folder{"": data}, nil); err != nil || sent.Load() > 1<<16 {
		t.Errorf("an upload of what is there sent %d bytes, %v", sent.Load(), err)
	}
}

// TestChangedMeanwhile: contents of two versions are never mixed.
func TestChangedMeanwhile(t *testing.T) {
	server := miniotest.Start(t)
	c := newClient(t, server.Host)
	put := func(text string) {
		if _, err := server.Admin.PutObject(t.Context(), miniotest.Bucket, "x", strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put("before")
	found, err := c.Look(t.Context(), miniotest.Bucket, "x")
	if err != nil {
		t.Fatal(err)
	}
	put("after!")
	if err := c.Download(t.Context(), found, &taken{dir: t.TempDir()}); !errors.Is(err, errChanged) {
		t.Errorf("download: %v", err)
	}
}

var _ io.ReaderAt = memory{}
