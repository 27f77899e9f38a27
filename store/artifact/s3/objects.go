package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/skiff-ml/skiff/api/address"
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// Where the store keeps the objects that say what is where.
const (
	configMapsKind = "configmaps"
	secretsKind    = "secrets"
)

// settings reads a namespace's config map; none is none.
func (m *Mirror) settings(ctx context.Context, namespace string) (*Settings, error) {
	found, err := store.GetAs[*core.ConfigMap](ctx, m.cfg.Store, store.Key{Kind: configMapsKind, Namespace: namespace, Name: ConfigMapName})
	if errors.Is(err, store.ErrNotFound) {
		return &Settings{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read config map %s: %w", ConfigMapName, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.parsed[namespace]; known.settings != nil && known.version == found.ResourceVersion {
		return known.settings, nil
	}
	settings, err := ParseSettings(found.Data)
	if err == nil {
		m.parsed[namespace] = parsed{found.ResourceVersion, settings}
	}
	return settings, err
}

// parsed are settings as of one version of their config map.
type parsed struct {
	version  string
	settings *Settings
}

// place says in which bucket a namespace keeps a URI, and whether in any.
func (m *Mirror) place(ctx context.Context, namespace, uri string) (Place, bool, error) {
	s, err := m.settings(ctx, namespace)
	if err != nil {
		return Place{}, false, err
	}
	return s.Place(uri)
}

// placeToRead is place, and where the namespace says nothing of a bucket of gs://
// what the public may read of it, if anything may be fetched from there at all.
func (m *Mirror) placeToRead(ctx context.Context, namespace, uri string) (Place, bool, error) {
	p, kept, err := m.place(ctx, namespace, uri)
	key, is := strings.CutPrefix(uri, "gs://")
	if err != nil || kept || !is || m.cfg.Reach == address.Nowhere {
		return p, kept, err
	}
	p = m.google
	p.Bucket, p.Key, _ = strings.Cut(strings.TrimSuffix(key, "/"), "/")
	return p, true, nil
}

// client is a client for a place, with the credentials as they are now.
func (m *Mirror) client(ctx context.Context, namespace string, p Place) (*Client, error) {
	keys, err := m.credentials(ctx, namespace, p)
	if err != nil {
		return nil, err
	}
	key := clientKey{p.Endpoint, p.Region, p.Secure, p.PathStyle, p.Retries, keys}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.clients[key]; c != nil {
		return c, nil
	}
	c, err := Dial(p, keys)
	if err != nil {
		return nil, err
	}
	if len(m.clients) >= clientsKept {
		for old, c := range m.clients {
			c.Close() // those in use keep their connections until they are idle
			delete(m.clients, old)
		}
	}
	m.clients[key] = c
	return c, nil
}

func (m *Mirror) credentials(ctx context.Context, namespace string, p Place) (Credentials, error) {
	switch {
	case p.Anonymous:
		return Credentials{}, nil
	case p.FromEnv && m.cfg.Environment == nil:
		return Credentials{}, fmt.Errorf("bucket %q: config map %s has fromEnv, and this daemon lends nobody its own credentials: "+
			"name a secret, or start it with --s3-from-env: %w", p.Bucket, ConfigMapName, ErrSettings)
	case p.FromEnv:
		return *m.cfg.Environment, nil
	}
	ref := p.Secret
	secret, err := store.GetAs[*core.Secret](ctx, m.cfg.Store, store.Key{Kind: secretsKind, Namespace: namespace, Name: ref.SecretName})
	if errors.Is(err, store.ErrNotFound) {
		return Credentials{}, fmt.Errorf("bucket %q: secret %s, which config map %s names, is not in namespace %s: make it with the keys %s and %s: %w",
			p.Bucket, ref.SecretName, ConfigMapName, namespace, ref.AccessKeyKey, ref.SecretKeyKey, ErrSettings)
	}
	if err != nil {
		return Credentials{}, fmt.Errorf("read secret %s: %w", ref.SecretName, err)
	}
	// Files that secrets are made of often end in a newline.
	keys := Credentials{
		AccessKey: strings.TrimSpace(string(secret.Data[ref.AccessKeyKey])),
		SecretKey: strings.TrimSpace(string(secret.Data[ref.SecretKeyKey])),
	}
	if keys.AccessKey == "" || keys.SecretKey == "" {
		return Credentials{}, fmt.Errorf("bucket %q: secret %s has nothing under %s or %s: %w", p.Bucket, ref.SecretName, ref.AccessKeyKey, ref.SecretKeyKey, ErrSettings)
	}
	return keys, nil
}

// explain says of an error which artifact it is about and, where it is a matter
// of credentials, where they come from.
func (p Place) explain(err error) error {
	err = fmt.Errorf("artifact %s: %w", p.URI(), err)
	switch {
	case !errors.Is(err, ErrDenied):
		return err
	case p.Anonymous:
		return fmt.Errorf("%w: bucket %q is not open to everybody; name a secret with HMAC keys in config map %s, providers.%s", err, p.Bucket, ConfigMapName, p.Scheme)
	case p.FromEnv:
		return fmt.Errorf("%w: bucket %q: the keys are those of the daemon's environment, as config map %s says", err, p.Bucket, ConfigMapName)
	default:
		return fmt.Errorf("%w: bucket %q: the keys are those of secret %s (%s, %s), as config map %s says",
			err, p.Bucket, p.Secret.SecretName, p.Secret.AccessKeyKey, p.Secret.SecretKeyKey, ConfigMapName)
	}
}

// hostOf is what stands first in a URI: its bucket, or its host.
func hostOf(uri string) string {
	_, rest, _ := strings.Cut(uri, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}
