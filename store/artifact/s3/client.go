package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	keys "github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/skiff-ml/skiff/store/artifact"
)

const (
	// shaMetadata is the user metadata that holds the SHA-256 of an object's
	// contents, in hexadecimal. minio-go gives its name back in this form.
	shaMetadata = "Skiff-Sha256"
	// ownerMetadata holds the mark of the Owner that uploaded an object.
	ownerMetadata = "Skiff-Owner"
	// idleTimeout ends a connection on which nothing moves.
	idleTimeout = 60 * time.Second
	// dialTimeout is for an endpoint that takes no connections at all.
	dialTimeout = 10 * time.Second
	// firstPause is before the second try of a request, doubled with each.
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Credentials let a client in; the zero value is nobody.
type Credentials struct{ AccessKey, SecretKey, SessionToken string }

// Client speaks with one object store. It is safe for concurrent use. Close it.
type Client struct {
	core     minio.Core
	endpoint string
	retries  int
	secrets  []string // that no message may hold
	close    func()
	part     int64 // partSize, less in tests
	batch    int   // deleteBatch, less in tests
}

// Dial makes a client. It does not connect: the first request does.
func Dial(p Place, c Credentials) (*Client, error) { return dial(p, c, idleTimeout) }

func dial(p Place, c Credentials, idle time.Duration) (*Client, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         busy(dialer.DialContext, idle),
		TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: idle, IdleConnTimeout: idle,
		MaxIdleConnsPerHost: 2 * transfers,
		DisableCompression:  true, // objects are what they are
	}
	lookup := minio.BucketLookupDNS
	switch {
	case strings.HasSuffix(p.Endpoint, ".amazonaws.com") || p.Endpoint == google:
		lookup = minio.BucketLookupAuto // the library knows them better
	case p.PathStyle:
		lookup = minio.BucketLookupPath
	}
	region := p.Region
	if region == "" && lookup == minio.BucketLookupPath {
		region = "us-east-1" // what such servers take; asking for it would be one more request
	}
	// Retries are ours: a part is read anew for each, and the reason is kept.
	core, err := minio.NewCore(p.Endpoint, &minio.Options{
		Creds: keys.NewStaticV4(c.AccessKey, c.SecretKey, c.SessionToken), Secure: p.Secure, Region: region,
		BucketLookup: lookup, Transport: transport, MaxRetries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("object store %s: %w: %w", p.Endpoint, ErrSettings, err)
	}
	client := &Client{core: *core, endpoint: p.Endpoint, retries: p.Retries, part: partSize, batch: deleteBatch, close: transport.CloseIdleConnections}
	for _, secret := range []string{c.AccessKey, c.SecretKey, c.SessionToken} {
		if secret != "" {
			client.secrets = append(client.secrets, secret)
		}
	}
	return client, nil
}

// Close lets go of connections.
func (c *Client) Close() { c.close() }

// again calls try until it succeeds, its error would not change, or it was tried
// often enough.
func (c *Client) again(ctx context.Context, try func() error) error {
	pause := firstPause
	for attempt := 0; ; attempt++ {
		err := c.explain(try())
		temporary := errors.Is(err, ErrAway) || errors.Is(err, ErrCorrupt)
		if err == nil || !temporary || attempt >= c.retries || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-timer.C:
		}
		pause = min(2*pause, lastPause)
	}
}

// object is one object of an artifact.
type object struct {
	// path is below the artifact; empty for the artifact itself.
	path string
	key  string
	etag string
	size int64
	// sha is the content's SHA-256 in hexadecimal; empty where it is not known,
	// as it is in listings and of objects that others made.
	sha string
	// mark is the owner's; empty in listings and of objects that others made.
	mark string
}

// Content is what a bucket has under an artifact's key.
type Content struct {
	Dir bool
	// Size is the bytes of all objects, Files their number.
	Size, Files int64
	// Version identifies the contents: "sha256:…" of a file whose hash is known,
	// else something that changes when the contents do.
	Version string

	bucket  string
	objects []object
}

// Look finds what a bucket has under a key: the object of that name, or else all
// objects below it. Neither is artifact.ErrNotFound.
func (c *Client) Look(ctx context.Context, bucket, key string) (*Content, error) {
	if key != "" {
		info, err := c.stat(ctx, bucket, key)
		if err == nil {
			found := &Content{Size: info.Size, Files: 1, bucket: bucket, objects: []object{objectOf(info, key, "")}}
			found.Version = version(found.objects)
			if sha := found.objects[0].sha; sha != "" {
				found.Version = artifact.DigestPrefix + sha
			}
			return found, nil
		}
		if !errors.Is(err, artifact.ErrNotFound) {
			return nil, err
		}
	}
	found := &Content{Dir: true, bucket: bucket}
	if err := c.list(ctx, found, key); err != nil {
		return nil, err
	}
	if len(found.objects) == 0 {
		return nil, fmt.Errorf("%s: nothing is at %s/%s or below it: %w", c.endpoint, bucket, key, artifact.ErrNotFound)
	}
	for _, o := range found.objects {
		found.Size += o.size
		found.Files++
	}
	found.Version = version(found.objects)
	return found, nil
}

func (c *Client) stat(ctx context.Context, bucket, key string) (info minio.ObjectInfo, err error) {
	err = c.again(ctx, func() (err error) {
		info, err = c.core.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
		return err
	})
	return info, err
}

// list finds the objects below a key; "key/" is the folder itself, as some tools
// mark it, and no content.
func (c *Client) list(ctx context.Context, found *Content, key string) error {
	prefix := key + "/"
	if key == "" {
		prefix = ""
	}
	return c.again(ctx, func() error {
		found.objects = nil
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // the listing's goroutine ends with it
		for info := range c.core.Client.ListObjects(ctx, found.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
			switch {
			case info.Err != nil:
				return info.Err
			case strings.HasSuffix(info.Key, "/"):
			default:
				found.objects = append(found.objects, objectOf(info, info.Key, strings.TrimPrefix(info.Key, prefix)))
			}
		}
		return ctx.Err()
	})
}

func objectOf(info minio.ObjectInfo, key, path string) object {
	o := object{path: path, key: key, etag: strings.Trim(info.ETag, `"`), size: info.Size, sha: strings.ToLower(info.UserMetadata[shaMetadata]),
		mark: info.UserMetadata[ownerMetadata]}
	if sum, err := hex.DecodeString(o.sha); err != nil || len(sum) != sha256.Size {
		o.sha = ""
	}
	return o
}

// version identifies objects by what the store says of them.
func version(objects []object) string {
	sum := sha256.New()
	sorted := slices.SortedFunc(slices.Values(objects), func(a, b object) int { return strings.Compare(a.path, b.path) })
	for _, o := range sorted {
		fmt.Fprintf(sum, "%q %q %d\n", o.path, o.etag, o.size)
	}
	return "objects:" + hex.EncodeToString(sum.Sum(nil))
}
