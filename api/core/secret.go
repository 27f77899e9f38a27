package core

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/skiff-ml/skiff/api/problem"
)

// SecretKind is the kind string of a Secret.
const SecretKind = "Secret"

// Types of secrets that promise something about their keys (core/v1 SecretType).
const (
	SecretOpaque           = "Opaque"
	SecretDockerConfigJSON = "kubernetes.io/dockerconfigjson" //nolint:gosec // A name, no credential.
	SecretDockerConfig     = "kubernetes.io/dockercfg"        //nolint:gosec // A name, no credential.
	SecretBasicAuth        = "kubernetes.io/basic-auth"       //nolint:gosec // A name, no credential.
	SecretSSHAuth          = "kubernetes.io/ssh-auth"         //nolint:gosec // A name, no credential.
	SecretTLS              = "kubernetes.io/tls"              //nolint:gosec // A name, no credential.
)

// Keys that the types promise.
const (
	DockerConfigJSONKey = ".dockerconfigjson"
	DockerConfigKey     = ".dockercfg"
	basicAuthUser       = "username"
	basicAuthPassword   = "password"
	sshPrivateKey       = "ssh-privatekey"
	tlsCertificate      = "tls.crt"
	tlsPrivateKey       = "tls.key"
)

// MaxDataBytes is the most that the values of a Secret or a ConfigMap may hold
// together, in bytes; keys count with the values.
const MaxDataBytes = 1 << 20

// Secret holds values that only those may see who may get it (core/v1 Secret).
// The store seals it; what prints objects for people must call Redacted first.
type Secret struct {
	TypeMeta
	ObjectMeta `json:"metadata"`
	// Data is base64 in JSON.
	Data map[string][]byte `json:"data,omitempty"`
	// StringData is for writing alone: Default moves it into Data, over what
	// is there.
	StringData map[string]string `json:"stringData,omitempty"`
	SecretType string            `json:"type,omitempty"`
	// Immutable, once true, can be neither taken back nor is the data changed.
	Immutable *bool `json:"immutable,omitempty"`
}

// Default fills in what the published API fills in: the type, and Data from
// StringData.
func (s *Secret) Default() {
	if s.SecretType == "" {
		s.SecretType = SecretOpaque
	}
	if len(s.StringData) == 0 {
		s.StringData = nil
		return
	}
	data := maps.Clone(s.Data)
	if data == nil {
		data = make(map[string][]byte, len(s.StringData))
	}
	for key, value := range s.StringData {
		data[key] = []byte(value)
	}
	s.Data, s.StringData = data, nil
}

// Validate checks a secret after Default. No value is part of an error.
func (s *Secret) Validate() error {
	var list problem.List
	validateName(&list, s.Name, s.GenerateName)
	size := 0
	for _, key := range slices.Sorted(maps.Keys(s.Data)) {
		validateKey(&list, "data", key)
		size += len(key) + len(s.Data[key])
	}
	validateSize(&list, "data", size)
	need := func(key string) {
		if _, there := s.Data[key]; !there {
			list.Add(dataField(key), "a secret of type %s needs this key", s.SecretType)
		}
	}
	switch s.SecretType {
	case SecretDockerConfigJSON:
		need(DockerConfigJSONKey)
		validateJSON(&list, s.Data, DockerConfigJSONKey)
	case SecretDockerConfig:
		need(DockerConfigKey)
		validateJSON(&list, s.Data, DockerConfigKey)
	case SecretBasicAuth:
		_, user := s.Data[basicAuthUser]
		if _, password := s.Data[basicAuthPassword]; !user && !password {
			list.Add("data", "a secret of type %s needs the key %s or %s", s.SecretType, basicAuthUser, basicAuthPassword)
		}
	case SecretSSHAuth:
		need(sshPrivateKey)
	case SecretTLS:
		need(tlsCertificate)
		need(tlsPrivateKey)
	}
	return list.OrNil()
}

// ValidateUpdate checks that a secret may become next; both after Default.
func (s *Secret) ValidateUpdate(next *Secret) error {
	if err := next.Validate(); err != nil {
		return err
	}
	var list problem.List
	if s.SecretType != next.SecretType {
		list.Add("type", "cannot be changed from %q; delete the secret and make it anew", s.SecretType)
	}
	if isTrue(s.Immutable) {
		same := maps.EqualFunc(s.Data, next.Data, func(a, b []byte) bool { return string(a) == string(b) })
		validateImmutable(&list, same && isTrue(next.Immutable))
	}
	return list.OrNil()
}

// Redacted is a copy to show: the keys, and no value. Annotations go, too, since
// clients keep whole manifests in them.
func (s *Secret) Redacted() *Secret {
	shown := *s
	shown.Annotations, shown.StringData = nil, nil
	shown.Data = make(map[string][]byte, len(s.Data))
	for key := range s.Data {
		shown.Data[key] = nil
	}
	for key := range s.StringData {
		shown.Data[key] = nil
	}
	return &shown
}

func validateJSON(list *problem.List, data map[string][]byte, key string) {
	var object map[string]json.RawMessage
	if value, there := data[key]; there && json.Unmarshal(value, &object) != nil {
		// The decoder's own words would quote the value.
		list.Add(dataField(key), "is not a JSON object")
	}
}

// ConfigMapKind is the kind string of a ConfigMap.
const ConfigMapKind = "ConfigMap"

// ConfigMap holds settings that are no secret (core/v1 ConfigMap).
type ConfigMap struct {
	TypeMeta
	ObjectMeta `json:"metadata"`
	Data       map[string]string `json:"data,omitempty"`
	// BinaryData is base64 in JSON; no key may be in Data, too.
	BinaryData map[string][]byte `json:"binaryData,omitempty"`
	// Immutable is as in Secret.
	Immutable *bool `json:"immutable,omitempty"`
}

// Validate checks a config map.
func (c *ConfigMap) Validate() error {
	var list problem.List
	validateName(&list, c.Name, c.GenerateName)
	size := 0
	for _, key := range slices.Sorted(maps.Keys(c.Data)) {
		validateKey(&list, "data", key)
		size += len(key) + len(c.Data[key])
	}
	for _, key := range slices.Sorted(maps.Keys(c.BinaryData)) {
		validateKey(&list, "binaryData", key)
		size += len(key) + len(c.BinaryData[key])
		if _, twice := c.Data[key]; twice {
			list.Add("binaryData["+key+"]", "the key is in data, too")
		}
	}
	validateSize(&list, "data", size)
	return list.OrNil()
}

// ValidateUpdate checks that a config map may become next.
func (c *ConfigMap) ValidateUpdate(next *ConfigMap) error {
	if err := next.Validate(); err != nil {
		return err
	}
	var list problem.List
	if isTrue(c.Immutable) {
		same := maps.Equal(c.Data, next.Data) &&
			maps.EqualFunc(c.BinaryData, next.BinaryData, func(a, b []byte) bool { return string(a) == string(b) })
		validateImmutable(&list, same && isTrue(next.Immutable))
	}
	return list.OrNil()
}

// Value is the value of a key, text or binary.
func (c *ConfigMap) Value(key string) ([]byte, bool) {
	if value, there := c.Data[key]; there {
		return []byte(value), true
	}
	value, there := c.BinaryData[key]
	return value, there
}

func isTrue(b *bool) bool { return b != nil && *b }

func dataField(key string) string { return fmt.Sprintf("data[%s]", key) }

func validateImmutable(list *problem.List, same bool) {
	if !same {
		list.Add("immutable", "the object is immutable: neither its data nor this field can be changed; delete it and make it anew")
	}
}

func validateSize(list *problem.List, field string, size int) {
	if size > MaxDataBytes {
		list.Add(field, "keys and values take %d bytes, at most %d are allowed", size, MaxDataBytes)
	}
}
