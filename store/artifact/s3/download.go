package s3

import (
	"context"
	"crypto/md5" //nolint:gosec // What stores name contents by; checked where they gave no better.
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"
)

// Sink takes an artifact's files; its methods are called by several at once.
type Sink interface {
	// Create makes a file, with the folders that it lies in, open for writing.
	// The caller closes it. A path that cannot be one is an error.
	Create(path string) (SinkFile, error)
}

// SinkFile is a file that contents come to.
type SinkFile interface {
	io.Writer
	io.Seeker
	io.Closer
	Truncate(size int64) error
}

// Download brings what Look found into a sink and checks every byte that there is
// a checksum for. Contents that changed meanwhile are ErrCorrupt.
func (c *Client) Download(ctx context.Context, content *Content, sink Sink) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	for i := range content.objects {
		group.Go(func() error {
			if err := c.object(ctx, content.bucket, &content.objects[i], sink); err != nil {
				return fmt.Errorf("download %s: %w", content.objects[i].key, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// object downloads one object. Each try goes on where the one before broke off;
// after contents that were wrong it begins anew.
func (c *Client) object(ctx context.Context, bucket string, o *object, sink Sink) (err error) {
	file, err := sink.Create(o.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	d := &downloading{c: c, bucket: bucket, o: o, file: file}
	return c.again(ctx, func() error {
		err := d.try(ctx)
		if errors.Is(err, ErrCorrupt) || errors.Is(err, errLocal) {
			if err := d.restart(); err != nil {
				return err
			}
		}
		return err
	})
}

// errChanged: the object is another one than Look found.
var errChanged = errors.New("it changed while it was read")

// errLocal is a fault of this machine's, which no second try mends.
var errLocal = errors.New("write here")

// downloading is one object on its way.
type downloading struct {
	c      *Client
	bucket string
	o      *object
	file   SinkFile
	at     int64
	check  checksum
}

func (d *downloading) restart() error {
	d.at, d.check = 0, checksum{}
	_, err := d.file.Seek(0, io.SeekStart)
	return errors.Join(err, d.file.Truncate(0))
}

func (d *downloading) try(ctx context.Context) (err error) {
	if d.at == d.o.size && d.at > 0 {
		return d.verify()
	}
	var options minio.GetObjectOptions
	if d.o.etag != "" {
		if err := options.SetMatchETag(d.o.etag); err != nil {
			return err
		}
	}
	if d.at > 0 {
		if err := options.SetRange(d.at, 0); err != nil {
			return err
		}
	} else {
		options.Set("x-amz-checksum-mode", "ENABLED")
	}
	body, info, header, err := d.c.core.GetObject(ctx, d.bucket, d.o.key, options)
	if err != nil {
		if minio.ToErrorResponse(err).StatusCode == http.StatusPreconditionFailed {
			return fmt.Errorf("%s: %w", d.c.endpoint, errChanged)
		}
		return err
	}
	defer func() { _ = body.Close() }()
	if d.at == 0 {
		got := objectOf(info, d.o.key, d.o.path)
		d.o.sha = got.sha
		d.check = checksumOf(got, header)
	}
	// One more byte than it may have shows that it has more.
	_, err = io.Copy(&checkedWriter{d}, io.LimitReader(body, d.o.size-d.at+1))
	switch {
	case err != nil:
		return err
	case d.at < d.o.size:
		return fmt.Errorf("%s: %w: it ended after %d of %d bytes", d.c.endpoint, ErrAway, d.at, d.o.size)
	}
	return d.verify()
}

// checkedWriter writes to the file and to the checksum.
type checkedWriter struct{ d *downloading }

func (w *checkedWriter) Write(p []byte) (int, error) {
	n, err := w.d.file.Write(p)
	w.d.at += int64(n)
	if w.d.check.hash != nil {
		w.d.check.hash.Write(p[:n])
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", errLocal, err)
	}
	return n, err
}

func (d *downloading) verify() error {
	if d.at > d.o.size {
		return fmt.Errorf("%s: %w: it has more than its %d bytes", d.c.endpoint, ErrCorrupt, d.o.size)
	}
	if d.check.hash == nil {
		return nil
	}
	if got := hex.EncodeToString(d.check.hash.Sum(nil)); got != d.check.want {
		return fmt.Errorf("%s: %w: %s is %s, expected %s", d.c.endpoint, ErrCorrupt, d.check.name, got, d.check.want)
	}
	return nil
}

// checksum is what contents are held against; the zero value is nothing.
type checksum struct {
	name string
	hash hash.Hash
	want string // hexadecimal
}

// checksumOf takes the best that the store gives: the hash that we put there,
// one that S3 keeps of whole objects, or the MD5 that an entity tag is where the
// object came in one piece and is not encrypted with a key of its own.
func checksumOf(o object, header http.Header) checksum {
	if o.sha != "" {
		return checksum{"sha256", sha256.New(), o.sha}
	}
	for _, known := range []struct {
		name string
		make func() hash.Hash
	}{
		{"sha256", sha256.New},
		{"crc32c", func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }},
	} {
		// Of a checksum of checksums, "…-N", whole contents say nothing.
		value := header.Get("x-amz-checksum-" + known.name)
		if raw, err := base64.StdEncoding.DecodeString(value); err == nil && value != "" && !strings.EqualFold(header.Get("x-amz-checksum-type"), "COMPOSITE") {
			return checksum{known.name, known.make(), hex.EncodeToString(raw)}
		}
	}
	encrypted := header.Get("x-amz-server-side-encryption") == "aws:kms" || header.Get("x-amz-server-side-encryption-customer-algorithm") != ""
	if sum, err := hex.DecodeString(o.etag); err == nil && len(sum) == md5.Size && !encrypted {
		return checksum{"md5", md5.New(), o.etag} //nolint:gosec // See above.
	}
	return checksum{}
}
