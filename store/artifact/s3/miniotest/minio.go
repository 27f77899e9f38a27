// Package miniotest runs a real MinIO for tests, and a proxy before it that does
// to what passes what networks do.
package miniotest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The server's one user. Tests look for the secret where it must not be.
const (
	AccessKey = "skiff-test-access"
	SecretKey = "skiff-test-secret-key" //nolint:gosec // Of a server that ends with its test.
	// Bucket is there when Start returns.
	Bucket = "skiff"
)

// patience is how long a server may take until it answers.
const patience = 30 * time.Second

// Server is a MinIO that runs. It ends with the test.
type Server struct {
	// Host is HOST:PORT, the same after each start.
	Host string
	// Admin may do everything, past any proxy.
	Admin *minio.Client

	t             testing.TB
	program, data string
	mu            sync.Mutex
	cmd           *exec.Cmd
}

// program is the server's file: where test/minio.sh has it.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		script := filepath.Join(dir, "test", "minio.sh")
		if _, missing := os.Stat(script); missing == nil {
			out, err := exec.Command(script, "--check").Output()
			return strings.TrimSpace(string(out)), err
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("test/minio.sh is in no folder above")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
})

// Start runs a MinIO with an empty data folder and returns when it answers. A
// test is skipped where the program is not there; `make minio` builds it, and
// `make test` says that it is missing.
func Start(t testing.TB) *Server {
	t.Helper()
	file, err := program()
	if err != nil {
		t.Skipf("no MinIO server (%v): `make minio` builds one", err)
	}
	s := &Server{Host: freeAddress(t), t: t, program: file, data: filepath.Join(t.TempDir(), "minio")}
	transport := &http.Transport{DisableKeepAlives: true}
	admin, err := minio.New(s.Host, &minio.Options{Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: "us-east-1", Transport: transport, TrailingHeaders: true, MaxRetries: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.Admin = admin
	t.Cleanup(s.Kill)
	s.Run()
	if err := s.Admin.MakeBucket(t.Context(), Bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Run starts the server, anew after Kill, on the data that is there.
func (s *Server) Run() {
	s.t.Helper()
	cmd := exec.Command(s.program, "server", "--quiet", "--address", s.Host, s.data)
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+AccessKey, "MINIO_ROOT_PASSWORD="+SecretKey, "MINIO_BROWSER=off", "MINIO_UPDATE=off",
		"HOME="+filepath.Dir(s.data))
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.cmd = cmd
	s.mu.Unlock()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if err := s.ready(); err == nil {
			return
		} else if time.Now().After(deadline) {
			s.t.Fatalf("MinIO does not answer: %v", err)
		}
	}
}

func (s *Server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := s.Admin.ListBuckets(ctx)
	return err
}

// Kill ends the server the hard way; it may be called twice.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // It was killed.
	s.cmd = nil
}

// Keys lists the objects of the bucket below a prefix.
func (s *Server) Keys(prefix string) []string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var keys []string
	for o := range s.Admin.ListObjects(ctx, Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			s.t.Fatal(o.Err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

// Session are credentials, with their session token, that may do the named actions
// on the bucket, such as "s3:GetObject", and nothing else.
func (s *Server) Session(actions ...string) (accessKey, secretKey, token string) {
	s.t.Helper()
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["%s"],"Resource":["arn:aws:s3:::%s","arn:aws:s3:::%s/*"]}]}`,
		strings.Join(actions, `","`), Bucket, Bucket)
	session, err := credentials.NewSTSAssumeRole("http://"+s.Host, credentials.STSAssumeRoleOptions{
		AccessKey: AccessKey, SecretKey: SecretKey, Policy: policy, DurationSeconds: 3600, Location: "us-east-1",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	got, err := session.GetWithContext(&credentials.CredContext{Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}})
	if err != nil {
		s.t.Fatal(err)
	}
	return got.AccessKeyID, got.SecretAccessKey, got.SessionToken
}

// Parts is how many parts of unfinished uploads there are of a key.
func (s *Server) Parts(key string) (int, error) {
	core := minio.Core{Client: s.Admin}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	page, err := core.ListMultipartUploads(ctx, Bucket, key, "", "", "", 100)
	if err != nil {
		return 0, err
	}
	count := 0
	for _, one := range page.Uploads {
		parts, err := core.ListObjectParts(ctx, Bucket, key, one.UploadID, 0, 1000)
		if err != nil {
			return 0, err
		}
		count += len(parts.ObjectParts)
	}
	return count, nil
}

// Providers is the "providers" text of a kfp-launcher config map that has a
// scheme's buckets at an endpoint, with the secret named.
func Providers(scheme, endpoint, secret string) string {
	return fmt.Sprintf(`%s:
  default:
    endpoint: %s
    region: us-east-1
    disableSSL: true
    credentials:
      fromEnv: false
      secretRef: {secretName: %s, accessKeyKey: accesskey, secretKeyKey: secretkey}
`, scheme, endpoint, secret)
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}()
	return l.Addr().String()
}
