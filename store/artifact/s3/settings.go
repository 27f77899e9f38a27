package s3

import (
	"fmt"
	"net/url"
	"strings"

	"sigs.k8s.io/yaml"
)

// Names of the published configuration (kubeflow/pipelines, backend/src/v2/config).
const (
	// ConfigMapName is the namespace's config map, the same as on the cluster.
	ConfigMapName = "kfp-launcher"
	rootKey       = "defaultPipelineRoot"
	providersKey  = "providers"
)

// Where a provider is that names no endpoint of its own.
const (
	amazon = "s3.amazonaws.com"
	google = "storage.googleapis.com"
)

// defaultRetries is the published default of maxRetries.
const defaultRetries = 5

// Settings are a namespace's config map, read. The zero value keeps nothing
// elsewhere.
type Settings struct {
	// PipelineRoot is where the namespace's runs keep their outputs; empty for
	// wherever the daemon keeps them.
	PipelineRoot string

	providers map[string]*provider // by scheme
}

// provider is an entry of "providers". Those of gs have, beside what upstream
// has there, the fields of the others: keys for its S3-compatible API.
type provider struct {
	Default   *placement `json:"default"`
	Overrides []override `json:"overrides"`
}

type placement struct {
	Endpoint       string       `json:"endpoint"`
	Region         string       `json:"region"`
	DisableSSL     *bool        `json:"disableSSL"`
	ForcePathStyle *bool        `json:"forcePathStyle"`
	MaxRetries     *int         `json:"maxRetries"`
	Credentials    *credentials `json:"credentials"`
}

type override struct {
	placement
	BucketName string `json:"bucketName"`
	KeyPrefix  string `json:"keyPrefix"`
}

type credentials struct {
	FromEnv   bool       `json:"fromEnv"`
	SecretRef *SecretRef `json:"secretRef"`
}

// SecretRef names a secret of the namespace and its keys.
type SecretRef struct {
	SecretName   string `json:"secretName"`
	AccessKeyKey string `json:"accessKeyKey"`
	SecretKeyKey string `json:"secretKeyKey"`
	// TokenKey is for a service account of Google's, which is not taken.
	TokenKey string `json:"tokenKey"`
}

// Place is where contents are kept and how to get in.
type Place struct {
	Scheme, Bucket, Key string
	// Endpoint is HOST or HOST:PORT.
	Endpoint string
	Secure   bool
	// PathStyle has the bucket in the path, not in the host's name.
	PathStyle bool
	Region    string
	// Retries is how often a request or a download is tried again.
	Retries int
	// FromEnv takes the credentials from the daemon's environment; else Secret
	// names them. Anonymous does without.
	FromEnv, Anonymous bool
	Secret             SecretRef
}

// URI is the place as artifacts name it.
func (p Place) URI() string { return p.Scheme + "://" + p.Bucket + "/" + p.Key }

// ParseSettings reads the data of a kfp-launcher config map. Fields that it does
// not know are passed over, as upstream does.
func ParseSettings(data map[string]string) (*Settings, error) {
	s := &Settings{PipelineRoot: strings.TrimSpace(data[rootKey])}
	if err := yaml.Unmarshal([]byte(data[providersKey]), &s.providers); err != nil {
		return nil, fmt.Errorf("config map %s: %s: want a map of providers: %w: %w", ConfigMapName, providersKey, ErrSettings, err)
	}
	return s, nil
}

// Place says where a URI's contents are kept. False where the namespace does not
// say, so that the machine's own repository has them or nobody. An empty entry
// for minio is that, too: on the cluster it is the installation's own store.
func (s *Settings) Place(uri string) (Place, bool, error) {
	scheme, rest, _ := strings.Cut(uri, "://")
	p := s.providers[scheme]
	if scheme != "minio" && scheme != "s3" && scheme != "gs" {
		p = nil
	}
	empty := p != nil && p.Default == nil && p.Overrides == nil
	if p == nil || (empty && scheme == "minio") {
		return Place{}, false, nil
	}
	at := Place{Scheme: scheme, Retries: defaultRetries, Secure: true, PathStyle: true}
	at.Bucket, at.Key, _ = strings.Cut(strings.TrimSuffix(rest, "/"), "/")
	fail := func(field, text string) (Place, bool, error) {
		return Place{}, false, fmt.Errorf("config map %s: providers.%s.%s: %s: %w", ConfigMapName, scheme, field, text, ErrSettings)
	}
	if strings.Contains(at.Key, "?") {
		return Place{}, false, fmt.Errorf("artifact %s: settings in an address are not taken; write them in the config map %s: %w", uri, ConfigMapName, ErrSettings)
	}
	from := &placement{Credentials: &credentials{FromEnv: true}}
	if !empty {
		if p.Default == nil || p.Default.Credentials == nil {
			return fail("default.credentials", "is missing")
		}
		from = p.Default
	}
	field := "default"
	at.take(from)
	for i, o := range p.Overrides {
		if o.BucketName != at.Bucket || !under(at.Key, o.KeyPrefix) {
			continue
		}
		if field = fmt.Sprintf("overrides[%d]", i); o.Credentials == nil {
			return fail(field+".credentials", "is missing")
		}
		at.take(&o.placement)
		break
	}
	if err := at.finish(); err != "" {
		return fail(field, err)
	}
	return at, true, nil
}

// under reports whether a key is at a prefix or below it, by whole names.
func under(key, prefix string) bool {
	key, prefix = strings.Trim(key, "/"), strings.Trim(prefix, "/")
	return prefix == "" || key == prefix || strings.HasPrefix(key, prefix+"/")
}

// take puts what a placement says over what was said before.
func (p *Place) take(from *placement) {
	if from.Endpoint != "" {
		p.Endpoint = from.Endpoint
	}
	if from.Region != "" {
		p.Region = from.Region
	}
	if from.DisableSSL != nil {
		p.Secure = !*from.DisableSSL
	}
	if from.ForcePathStyle != nil {
		p.PathStyle = *from.ForcePathStyle
	}
	if from.MaxRetries != nil {
		p.Retries = max(0, *from.MaxRetries)
	}
	p.FromEnv, p.Secret = from.Credentials.FromEnv, SecretRef{}
	if ref := from.Credentials.SecretRef; ref != nil && !p.FromEnv {
		p.Secret = *ref
	}
}

// finish brings the endpoint into shape and says what is missing.
func (p *Place) finish() string {
	if p.Endpoint == "" {
		switch p.Scheme {
		case "s3":
			p.Endpoint = amazon
		case "gs":
			p.Endpoint = google
		default:
			return "endpoint is missing"
		}
	}
	if scheme, host, found := strings.Cut(p.Endpoint, "://"); found {
		p.Endpoint, p.Secure = host, scheme == "https"
	}
	p.Endpoint = strings.TrimSuffix(p.Endpoint, "/")
	if u, err := url.Parse("//" + p.Endpoint); err != nil || u.Host != p.Endpoint || u.Hostname() == "" {
		return fmt.Sprintf("endpoint %.100q: want HOST or HOST:PORT", p.Endpoint)
	}
	switch {
	case p.FromEnv && p.Scheme == "gs":
		p.FromEnv, p.Anonymous = false, true
	case p.FromEnv:
	case p.Secret.SecretName == "":
		return "credentials.secretRef.secretName is missing; or set fromEnv"
	case p.Secret.AccessKeyKey == "" || p.Secret.SecretKeyKey == "":
		if p.Secret.TokenKey != "" {
			return "credentials.secretRef.tokenKey: a service account's token is not taken; make an HMAC key for it and name that with accessKeyKey and secretKeyKey"
		}
		return "credentials.secretRef needs accessKeyKey and secretKeyKey"
	}
	return ""
}
