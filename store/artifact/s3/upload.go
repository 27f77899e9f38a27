package s3

import (
	"context"
	"crypto/md5" //nolint:gosec // S3 names a part by its MD5; what protects contents is their SHA-256.
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/store/artifact"
)

const (
	// partSize is that of a multipart upload's parts, and up to which a file goes
	// in one piece: what a broken connection costs, at most.
	partSize = 16 << 20
	// maxParts is S3's; larger files have larger parts.
	maxParts = 10_000
	// transfers is how many requests of one artifact are under way at once.
	transfers = 4
)

// Source is an artifact's files on this machine.
type Source interface {
	// Files lists them; dir is false for an artifact that is one file, whose path
	// is empty.
	Files(ctx context.Context) (files []artifact.Member, dir bool, err error)
	// Open opens one. The caller closes it.
	Open(path string) (File, error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.Closer
}

// Upload brings an artifact to a bucket and returns what is there then. What is
// there already, whole objects or parts of them, is not sent again, so an upload
// that broke off is taken up by calling it again. progress, where not nil, is
// told of bytes that are there.
//
// What is sent carries the owner's mark, by which Remove knows it. What somebody
// else put there with the same contents is left as it is, and stays theirs.
func (c *Client) Upload(ctx context.Context, owner Owner, bucket, key string, source Source, progress func(done, total int64)) (*Content, error) {
	files, dir, err := source.Files(ctx)
	if err != nil {
		return nil, err
	}
	if dir && len(files) == 0 {
		return &Content{Dir: true, Version: version(nil), bucket: bucket}, nil // a bucket has no empty folders
	}
	up := &uploading{c: c, owner: owner, bucket: bucket, source: source, progress: progress, there: map[string]object{}}
	for _, f := range files {
		up.total += f.Size
	}
	if dir {
		found := &Content{bucket: bucket}
		if err := c.list(ctx, found, key); err != nil {
			return nil, err
		}
		for _, o := range found.objects {
			up.there[o.key] = o
		}
		up.listed = true
	}
	made := make([]object, len(files))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	for i, f := range files {
		at := key
		if dir {
			at = key + "/" + f.Path
		}
		group.Go(func() (err error) {
			if made[i], err = up.file(ctx, at, f); err != nil {
				return fmt.Errorf("upload %s: %w", at, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	content := &Content{Dir: dir, Size: up.total, Files: int64(len(files)), bucket: bucket, objects: made, Version: version(made)}
	if !dir {
		content.Version = artifact.DigestPrefix + made[0].sha
	}
	return content, nil
}

// uploading is one Upload.
type uploading struct {
	c        *Client
	owner    Owner
	bucket   string
	source   Source
	progress func(done, total int64)
	total    int64
	done     atomic.Int64
	// there is what the bucket had, by key, where listed.
	there  map[string]object
	listed bool
}

func (u *uploading) add(n int64) {
	if done := u.done.Add(n); u.progress != nil {
		u.progress(done, u.total)
	}
}

// file makes one object be there.
func (u *uploading) file(ctx context.Context, key string, f artifact.Member) (o object, err error) {
	open, err := u.source.Open(f.Path)
	if err != nil {
		return object{}, err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	sum, err := hashed(ctx, open, 0, f.Size, sha256.New())
	if err != nil {
		return object{}, err
	}
	o = object{path: f.Path, key: key, size: f.Size, sha: hex.EncodeToString(sum), mark: u.owner.mark(u.bucket, key)}
	if u.mayBeThere(o) {
		switch was, err := u.present(ctx, o); {
		case err != nil:
			return object{}, err
		case was.sha == o.sha && (was.mark == o.mark || was.mark == ""):
			u.add(f.Size)
			return was, nil
		}
	}
	if f.Size <= u.c.part {
		// The store has checked the hash before it answered.
		if o.etag, err = u.whole(ctx, open, o); err == nil {
			u.add(f.Size)
		}
		return o, err
	}
	if err := u.parts(ctx, open, o); err != nil {
		return object{}, err
	}
	// Of parts put together, what counts is what the store says that it has.
	was, err := u.present(ctx, o)
	if err == nil && (was.sha != o.sha || was.size != o.size) {
		err = fmt.Errorf("%s: %w: it has %d bytes with the hash %q, sent were %d with %q", u.c.endpoint, ErrCorrupt, was.size, was.sha, o.size, o.sha)
	}
	was.path = f.Path
	return was, err
}

func (u *uploading) mayBeThere(o object) bool {
	was, found := u.there[o.key]
	return !u.listed || (found && was.size == o.size)
}

// present is what the store has under an object's key, the zero value for none.
func (u *uploading) present(ctx context.Context, o object) (object, error) {
	info, err := u.c.stat(ctx, u.bucket, o.key)
	if errors.Is(err, artifact.ErrNotFound) {
		return object{}, nil
	}
	if err != nil {
		return object{}, err
	}
	return objectOf(info, o.key, o.path), nil
}

func (o object) options() minio.PutObjectOptions {
	metadata := map[string]string{shaMetadata: o.sha}
	if o.mark != "" {
		metadata[ownerMetadata] = o.mark
	}
	return minio.PutObjectOptions{UserMetadata: metadata, ContentType: "application/octet-stream", DisableMultipart: true}
}

// whole sends a file in one piece and returns its entity tag.
func (u *uploading) whole(ctx context.Context, open File, o object) (etag string, err error) {
	err = u.c.again(ctx, func() error {
		put, err := u.c.core.PutObject(ctx, u.bucket, o.key, io.NewSectionReader(open, 0, o.size), o.size, "", o.sha, o.options())
		etag = strings.Trim(put.ETag, `"`)
		return u.c.spoilt(err)
	})
	return etag, err
}

// spoilt tells contents that changed on the way by MinIO's word for them: the
// signature covers their hash. The same keys were good a request before.
func (c *Client) spoilt(err error) error {
	if minio.ToErrorResponse(err).Code == "SignatureDoesNotMatch" {
		return fmt.Errorf("%s: %w: they changed on the way", c.endpoint, ErrCorrupt)
	}
	return err
}

// parts sends a file in parts, those that are not there.
func (u *uploading) parts(ctx context.Context, open File, o object) error {
	size := u.c.part
	if least := (o.size + maxParts - 1) / maxParts; least > size {
		size = (least + 1<<20 - 1) >> 20 << 20
	}
	id, there, err := u.begun(ctx, o.key)
	if err != nil {
		return err
	}
	if id == "" {
		err := u.c.again(ctx, func() (err error) {
			id, err = u.c.core.NewMultipartUpload(ctx, u.bucket, o.key, o.options())
			return err
		})
		if err != nil {
			return err
		}
	}
	count := int((o.size + size - 1) / size)
	sent := make([]minio.CompletePart, count)
	group, sending := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	for i := range sent {
		at := int64(i) * size
		group.Go(func() (err error) {
			sent[i], err = u.part(sending, open, o.key, id, there[i+1], i+1, at, min(size, o.size-at))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return u.c.again(ctx, func() error {
		_, err := u.c.core.CompleteMultipartUpload(ctx, u.bucket, o.key, id, sent, minio.PutObjectOptions{})
		if err != nil && minio.ToErrorResponse(err).Code == "NoSuchUpload" {
			return nil // completed by a request whose answer was lost: what is there is looked at next
		}
		return err
	})
}

// part makes one part be there.
func (u *uploading) part(ctx context.Context, open File, key, id string, was minio.ObjectPart, number int, at, size int64) (minio.CompletePart, error) {
	if was.Size == size {
		sum, err := hashed(ctx, open, at, size, md5.New()) //nolint:gosec // As the store names it.
		if err != nil {
			return minio.CompletePart{}, err
		}
		if strings.Trim(was.ETag, `"`) == hex.EncodeToString(sum) {
			u.add(size)
			return minio.CompletePart{PartNumber: number, ETag: was.ETag}, nil
		}
	}
	sum, err := hashed(ctx, open, at, size, sha256.New())
	if err != nil {
		return minio.CompletePart{}, err
	}
	var put minio.ObjectPart
	err = u.c.again(ctx, func() (err error) {
		put, err = u.c.core.PutObjectPart(ctx, u.bucket, key, id, number, io.NewSectionReader(open, at, size), size,
			minio.PutObjectPartOptions{Sha256Hex: hex.EncodeToString(sum)})
		return u.c.spoilt(err)
	})
	if err != nil {
		return minio.CompletePart{}, fmt.Errorf("part %d: %w", number, err)
	}
	u.add(size)
	return minio.CompletePart{PartNumber: number, ETag: put.ETag}, nil
}

// begun finds the newest upload of a key that was not completed, and its parts.
func (u *uploading) begun(ctx context.Context, key string) (id string, parts map[int]minio.ObjectPart, err error) {
	parts = map[int]minio.ObjectPart{}
	err = u.c.again(ctx, func() error {
		id = ""
		var newest time.Time
		marker, idMarker := "", ""
		for {
			page, err := u.c.core.ListMultipartUploads(ctx, u.bucket, key, marker, idMarker, "", 1000)
			if err != nil {
				return err
			}
			for _, one := range page.Uploads {
				if one.Key == key && !one.Initiated.Before(newest) {
					id, newest = one.UploadID, one.Initiated
				}
			}
			if !page.IsTruncated {
				return nil
			}
			marker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
		}
	})
	if err != nil || id == "" {
		return "", parts, err
	}
	err = u.c.again(ctx, func() error {
		for marker := 0; ; {
			page, err := u.c.core.ListObjectParts(ctx, u.bucket, key, id, marker, 1000)
			if err != nil {
				return err
			}
			for _, p := range page.ObjectParts {
				parts[p.PartNumber] = p
			}
			if !page.IsTruncated {
				return nil
			}
			marker = page.NextPartNumberMarker
		}
	})
	if errors.Is(err, artifact.ErrNotFound) {
		return "", parts, nil // aborted meanwhile
	}
	return id, parts, err
}

// hashed hashes a piece of a file.
func hashed(ctx context.Context, open io.ReaderAt, at, size int64, h hash.Hash) ([]byte, error) {
	n, err := io.Copy(h, contextReader{ctx, io.NewSectionReader(open, at, size)})
	if err == nil && n != size {
		err = fmt.Errorf("the file has %d bytes less than it had", size-n)
	}
	return h.Sum(nil), err
}

// contextReader ends a long read when its context does.
type contextReader struct {
	ctx context.Context // a Reader has no other way to be told.
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
