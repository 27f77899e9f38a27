package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/store/artifact"
)

// Owner is who uploads: an installation, and a namespace of it. The zero value is
// nobody, who owns nothing.
type Owner string

func (m *Mirror) owner(namespace string) Owner {
	if m.cfg.Owner == "" {
		return ""
	}
	return Owner(m.cfg.Owner + "/" + namespace)
}

// mark is what an owner's object carries. It depends on the place, so that a copy
// that somebody makes of the object is not the owner's.
func (o Owner) mark(bucket, key string) string {
	if o == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(string(o) + "\x00" + bucket + "\x00" + key))
	return hex.EncodeToString(sum[:16])
}

// deleteBatch is how many objects one request deletes; S3 takes no more.
const deleteBatch = 1000

// Remove removes what an owner uploaded under a key: the object of that name and
// those below it that carry the owner's mark. Others is how many are there that do
// not, and stay. Nothing there is no error; what is removed by half is removed by
// calling it again. In a bucket with versions it leaves them to the bucket's rules.
func (c *Client) Remove(ctx context.Context, owner Owner, bucket, key string) (others int, err error) {
	found := &Content{bucket: bucket}
	if err := c.list(ctx, found, key); err != nil {
		return 0, err
	}
	// The object of that name is in no listing of what is below it.
	list := append(found.objects, object{key: key})
	for len(list) > 0 {
		n := min(len(list), c.batch)
		foreign, err := c.removeBatch(ctx, owner, bucket, list[:n])
		if others += foreign; err != nil {
			return others, err
		}
		list = list[n:]
	}
	return others, nil
}

// removeBatch asks for the marks, which are in no listing, right before it deletes:
// there is no way to do both at once everywhere.
func (c *Client) removeBatch(ctx context.Context, owner Owner, bucket string, list []object) (others int, err error) {
	mine, there := make([]bool, len(list)), make([]bool, len(list))
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	for i, o := range list {
		group.Go(func() error {
			info, err := c.stat(asking, bucket, o.key)
			if errors.Is(err, artifact.ErrNotFound) {
				return nil
			}
			mark := owner.mark(bucket, o.key)
			there[i], mine[i] = true, mark != "" && objectOf(info, o.key, "").mark == mark
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	var keys []string
	for i, o := range list {
		switch {
		case mine[i]:
			keys = append(keys, o.key)
		case there[i]:
			others++
		}
	}
	return others, c.delete(ctx, bucket, keys)
}

// delete deletes objects, in one request where the store knows such a one.
func (c *Client) delete(ctx context.Context, bucket string, keys []string) error {
	if len(keys) > 1 && c.endpoint != google {
		return c.again(ctx, func() error { return c.deleteMany(ctx, bucket, keys) })
	}
	for _, key := range keys {
		err := c.again(ctx, func() error { return c.core.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{}) })
		if err != nil && !errors.Is(err, artifact.ErrNotFound) {
			return fmt.Errorf("delete %s: %w", key, err)
		}
	}
	return nil
}

func (c *Client) deleteMany(ctx context.Context, bucket string, keys []string) error {
	objects := make(chan minio.ObjectInfo, len(keys))
	for _, key := range keys {
		objects <- minio.ObjectInfo{Key: key}
	}
	close(objects)
	var first error
	for refused := range c.core.RemoveObjects(ctx, bucket, objects, minio.RemoveObjectsOptions{}) {
		err := c.explain(refused.Err)
		if first == nil && err != nil && !errors.Is(err, artifact.ErrNotFound) {
			first = err
			if refused.ObjectName != "" {
				first = fmt.Errorf("delete %s: %w", refused.ObjectName, err)
			}
		}
	}
	if first == nil {
		first = ctx.Err()
	}
	return first
}

// Purge gives an artifact's contents up: what is here of them, with the folders
// that hold nothing then, and what this
// installation uploaded of them to endpoint, empty for nowhere. Nothing there is no
// error. What is here goes even where the bucket cannot be asked; the error says
// what is left then, and calling it again goes on. What others put at the same
// place in the bucket stays.
func (m *Mirror) Purge(ctx context.Context, namespace, uri, endpoint string) error {
	key := Key{namespace, uri}
	unlock, err := m.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	err = m.Delete(ctx, namespace, uri)
	if err == nil {
		err = errors.Join(m.records.remove(key), m.Prune(namespace, uri))
	}
	if endpoint != "" {
		err = errors.Join(err, m.purgeBucket(ctx, key, endpoint))
	}
	return err
}

// purgeRetries is how often a request of a removal is tried again at most: nobody
// waits for it, and all of it is tried again later.
const purgeRetries = 1

func (m *Mirror) purgeBucket(ctx context.Context, key Key, endpoint string) error {
	p, kept, err := m.place(ctx, key.Namespace, key.URI)
	switch {
	case err != nil:
		return err
	case !kept:
		return fmt.Errorf("artifact %s was uploaded to %s, and namespace %s does not say any more how to get in there: give its config map %s the provider again: %w",
			key.URI, endpoint, key.Namespace, ConfigMapName, ErrSettings)
	case p.Endpoint != endpoint:
		return fmt.Errorf("artifact %s was uploaded to %s, and the config map %s of namespace %s names %s now, which is left alone: %w",
			key.URI, endpoint, ConfigMapName, key.Namespace, p.Endpoint, ErrSettings)
	}
	p.Retries = min(p.Retries, purgeRetries)
	c, err := m.client(ctx, key.Namespace, p)
	if err != nil {
		return err
	}
	others, err := c.Remove(ctx, m.owner(key.Namespace), p.Bucket, p.Key)
	if errors.Is(err, artifact.ErrNotFound) {
		return nil // the bucket itself is gone
	}
	if others > 0 && err == nil {
		m.log.Info("objects that this installation did not upload stay in the bucket", "uri", strings.TrimSuffix(key.URI, "/"), "objects", others)
	}
	if err != nil {
		return p.explain(err)
	}
	return nil
}
