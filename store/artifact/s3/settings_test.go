package s3

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// published is a providers text in the form that upstream documents.
const published = `
gs:
  default:
    credentials:
      fromEnv: false
      secretRef: {secretName: gs-keys, accessKeyKey: a, secretKeyKey: s}
minio:
  default:
    endpoint: minio.example.com:9000
    region: minio
    disableSSL: true
    credentials:
      fromEnv: false
      secretRef: {secretName: m, accessKeyKey: ma, secretKeyKey: ms}
  overrides: []
s3:
  default:
    endpoint: s3.amazonaws.com
    region: us-east-1
    disableSSL: false
    credentials:
      fromEnv: false
      secretRef: {secretName: s, accessKeyKey: sa, secretKeyKey: ss}
  overrides:
  - bucketName: b
    keyPrefix: some/path/
    credentials:
      fromEnv: false
      secretRef: {secretName: o, accessKeyKey: oa, secretKeyKey: os}
  - bucketName: b
    keyPrefix: some
    endpoint: s3.us-east-2.amazonaws.com
    region: us-east-2
    forcePathStyle: false
    maxRetries: 1
    credentials: {fromEnv: true}
`

func TestPlace(t *testing.T) {
	s, err := ParseSettings(map[string]string{"defaultPipelineRoot": "s3://b/some", "providers": published})
	if err != nil || s.PipelineRoot != "s3://b/some" {
		t.Fatalf("%+v, %v", s, err)
	}
	secret := func(name, access, key string) SecretRef {
		return SecretRef{SecretName: name, AccessKeyKey: access, SecretKeyKey: key}
	}
	s3 := Place{Scheme: "s3", Bucket: "b", Endpoint: "s3.amazonaws.com", Secure: true, PathStyle: true, Region: "us-east-1", Retries: 5}
	with := func(p Place, change func(*Place)) Place {
		change(&p)
		return p
	}
	for uri, want := range map[string]Place{
		"minio://mlpipeline/v2/x": {Scheme: "minio", Bucket: "mlpipeline", Key: "v2/x", Endpoint: "minio.example.com:9000", PathStyle: true,
			Region: "minio", Retries: 5, Secret: secret("m", "ma", "ms")},
		"gs://b/x":          {Scheme: "gs", Bucket: "b", Key: "x", Endpoint: google, Secure: true, PathStyle: true, Retries: 5, Secret: secret("gs-keys", "a", "s")},
		"s3://b/elsewhere/": with(s3, func(p *Place) { p.Key, p.Secret = "elsewhere", secret("s", "sa", "ss") }),
		// The first that fits counts, by whole names.
		"s3://b/some/path":   with(s3, func(p *Place) { p.Key, p.Secret = "some/path", secret("o", "oa", "os") }),
		"s3://b/some/path/x": with(s3, func(p *Place) { p.Key, p.Secret = "some/path/x", secret("o", "oa", "os") }),
		"s3://b/some/paths": with(s3, func(p *Place) {
			p.Key, p.Endpoint, p.Region, p.PathStyle, p.Retries, p.FromEnv = "some/paths", "s3.us-east-2.amazonaws.com", "us-east-2", false, 1, true
		}),
		"s3://b2/some/path": with(s3, func(p *Place) { p.Bucket, p.Key, p.Secret = "b2", "some/path", secret("s", "sa", "ss") }),
	} {
		got, kept, err := s.Place(uri)
		if err != nil || !kept {
			t.Errorf("%s: %v, %v", uri, kept, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", uri, diff)
		}
	}
}

func TestPlaceNowhere(t *testing.T) {
	for name, providers := range map[string]string{"none": "", "empty": "{}", "other": "invalid: {}", "minio alone": "minio: {}"} {
		s, err := ParseSettings(map[string]string{"providers": providers})
		if err != nil {
			t.Fatal(err)
		}
		for _, uri := range []string{"minio://b/x", "s3://b/x", "gs://b/x", "https://b/x", ""} {
			if p, kept, err := s.Place(uri); kept || err != nil {
				t.Errorf("%s: %q is at %+v, %v", name, uri, p, err)
			}
		}
	}
}

func TestSettingsRefused(t *testing.T) {
	const keys = "credentials: {secretRef: {secretName: n, accessKeyKey: a, secretKeyKey: s}}"
	for _, tt := range []struct{ name, providers, uri, says string }{
		{"no map", "[]", "s3://b/x", "providers"},
		{"no default", "s3: {overrides: []}", "s3://b/x", "providers.s3.default.credentials"},
		{"no credentials", "s3: {default: {endpoint: e}}", "s3://b/x", "default.credentials"},
		{"no secret", "s3: {default: {endpoint: e, credentials: {fromEnv: false}}}", "s3://b/x", "secretName"},
		{"no keys", "s3: {default: {endpoint: e, credentials: {secretRef: {secretName: n}}}}", "s3://b/x", "accessKeyKey"},
		{"no endpoint", "minio: {default: {" + keys + "}}", "minio://b/x", "endpoint"},
		{"endpoint with a path", "s3: {default: {endpoint: e/p, " + keys + "}}", "s3://b/x", "HOST:PORT"},
		{"endpoint with a user", "s3: {default: {endpoint: 'http://u:p@e', " + keys + "}}", "s3://b/x", "HOST:PORT"},
		{"override without credentials", "s3: {default: {endpoint: e, " + keys + "}, overrides: [{bucketName: b}]}", "s3://b/x", "overrides[0].credentials"},
		{"a token of Google's", "gs: {default: {credentials: {secretRef: {secretName: n, tokenKey: t}}}}", "gs://b/x", "HMAC"},
		{"settings in the address", "s3: {default: {endpoint: e, " + keys + "}}", "s3://b/x?endpoint=evil", "address"},
	} {
		s, err := ParseSettings(map[string]string{"providers": tt.providers})
		if err == nil {
			_, _, err = s.Place(tt.uri)
		}
		if !errors.Is(err, ErrSettings) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v; want ErrSettings that says %q", tt.name, err, tt.says)
		}
	}
}

func FuzzPlace(f *testing.F) {
	f.Add(published, "s3://b/some/path")
	f.Add("s3: {default: null, overrides: [{}]}", "s3://")
	f.Fuzz(func(t *testing.T, providers, uri string) {
		s, err := ParseSettings(map[string]string{"providers": providers})
		if err != nil {
			return
		}
		p, kept, err := s.Place(uri)
		if kept && (err != nil || p.Endpoint == "" || strings.ContainsAny(p.Endpoint, "/@?# ")) {
			t.Errorf("%q of %q is at %+v, %v", uri, providers, p, err)
		}
	})
}
