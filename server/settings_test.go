package server_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

const (
	secretsPath    = "/api/v1/namespaces/default/secrets"
	configMapsPath = "/api/v1/namespaces/default/configmaps"
	claimsPath     = "/api/v1/namespaces/default/persistentvolumeclaims"
	// hidden is a value that only those see who get the secret.
	hidden = "hidden-value"
)

func base64of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// TestSettingsScenarios goes through the verbs of secrets and config maps, each
// step on what the one before left.
func TestSettingsScenarios(t *testing.T) {
	f := newFixture(t)
	as := func(contentType string) func(*http.Request) {
		return func(r *http.Request) {
			bearer(token)(r)
			r.Header.Set("Content-Type", contentType)
		}
	}
	jsonBody, merge := as("application/json"), as("application/merge-patch+json")
	for _, tc := range []struct {
		name, method, path, body string
		header                   func(*http.Request)
		want                     int
		contains, lacks          []string
	}{
		{name: "discovery", method: "GET", path: "/api/v1", want: 200,
			contains: []string{`"name":"secrets"`, `"name":"configmaps"`, `"verbs":["get","list","watch","create","update","delete","patch"]`, `"cm"`}},
		{name: "dry run", method: "POST", path: secretsPath + "?dryRun=All", body: `{"metadata":{"name":"dry"}}`, want: 201},
		{name: "nothing was made", method: "GET", path: secretsPath + "/dry", want: 404, contains: []string{`secrets \"dry\" not found`}},
		{name: "create", method: "POST", path: secretsPath,
			body: `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","uid":"mine","creationTimestamp":null,"annotations":{"last-applied":"` + hidden + `"}},"stringData":{"password":"` + hidden + `"}}`,
			want: 201, contains: []string{`"kind":"Secret"`, `"type":"Opaque"`, base64of(hidden)}, lacks: []string{"stringData", `"mine"`}},
		{name: "create again", method: "POST", path: secretsPath, body: `{"metadata":{"name":"s"}}`, want: 409, contains: []string{"AlreadyExists", `secrets \"s\" already exists`}},
		{name: "generated name", method: "POST", path: secretsPath, body: `{"metadata":{"generateName":"gen-"},"type":"example.com/a"}`, want: 201, contains: []string{`"name":"gen-`}},
		{name: "by type", method: "GET", path: secretsPath + "?fieldSelector=type%3Dexample.com/a", want: 200, contains: []string{"gen-"}, lacks: []string{`"name":"s"`}},
		{name: "get", method: "GET", path: secretsPath + "/s", want: 200, contains: []string{base64of(hidden)}},
		{name: "list", method: "GET", path: secretsPath, want: 200, contains: []string{`"kind":"SecretList"`, base64of(hidden)}},
		{name: "merge patch", method: "PATCH", path: secretsPath + "/s", body: `{"stringData":{"user":"u"}}`, header: merge, want: 200,
			contains: []string{`"password"`, `"user"`}, lacks: []string{"stringData"}},
		{name: "patch the type", method: "PATCH", path: secretsPath + "/s", body: `{"type":"other"}`, header: merge, want: 422, contains: []string{"delete the secret"}, lacks: []string{base64of(hidden)}},
		{name: "replace", method: "PUT", path: secretsPath + "/s", body: `{"metadata":{"name":"s","labels":{"a":"b"}},"data":{"password":"` + base64of(hidden) + `"}}`, want: 200,
			contains: []string{`"a":"b"`, base64of(hidden)}, lacks: []string{`"user"`, "last-applied"}},
		{name: "replace another", method: "PUT", path: secretsPath + "/s", body: `{"metadata":{"name":"t"}}`, want: 400},
		{name: "replace nothing", method: "PUT", path: secretsPath + "/none", body: `{"metadata":{"name":"none"}}`, want: 404},
		{name: "replace an old one", method: "PUT", path: secretsPath + "/s", body: `{"metadata":{"name":"s","resourceVersion":"1"}}`, want: 409},
		{name: "replace one of another life", method: "PUT", path: secretsPath + "/s", body: `{"metadata":{"name":"s","uid":"x"}}`, want: 409},
		{name: "freeze", method: "PATCH", path: secretsPath + "/s", body: `{"immutable":true}`, header: merge, want: 200},
		{name: "change what is frozen", method: "PATCH", path: secretsPath + "/s", body: `{"data":null}`, header: merge, want: 422, contains: []string{"immutable"}},
		{name: "bad key", method: "POST", path: secretsPath, body: `{"metadata":{"name":"x"},"stringData":{"a/b":"` + hidden + `"}}`, want: 422, contains: []string{"a/b", `"field":"data"`}, lacks: []string{hidden}},
		{name: "number for text", method: "POST", path: secretsPath, body: `{"metadata":{"name":"x"},"stringData":{"a":123456}}`, want: 400, contains: []string{"stringData"}, lacks: []string{"123456"}},
		{name: "no base64", method: "POST", path: secretsPath, body: `{"metadata":{"name":"x"},"data":{"a":"` + hidden + `"}}`, want: 400, contains: []string{"base64"}, lacks: []string{hidden}},
		{name: "unknown field, strict", method: "POST", path: secretsPath + "?fieldValidation=Strict", body: `{"metadata":{"name":"x"},"` + hidden + `":1}`, want: 400, lacks: []string{hidden}},
		{name: "another kind", method: "POST", path: secretsPath, body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}`, want: 400, contains: []string{"want a Secret"}},
		{name: "another namespace", method: "POST", path: secretsPath, body: `{"metadata":{"name":"x","namespace":"other"}}`, want: 400},
		{name: "namespace that is none", method: "POST", path: "/api/v1/namespaces/Not_One/secrets", body: `{"metadata":{"name":"x"}}`, want: 400},
		{name: "finalizers", method: "POST", path: secretsPath, body: `{"metadata":{"name":"x","finalizers":["a"]}}`, want: 400, contains: []string{"finalizers"}},
		{name: "revision of a new one", method: "POST", path: secretsPath, body: `{"metadata":{"name":"x","resourceVersion":"7"}}`, want: 400},
		{name: "a form", method: "POST", path: secretsPath, body: `a=b`, header: as("application/x-www-form-urlencoded"), want: 415},
		{name: "not JSON", method: "POST", path: secretsPath, body: `{"metadata":`, want: 400},
		{name: "delete", method: "DELETE", path: secretsPath + "/s", want: 200, contains: []string{`"status":"Success"`}, lacks: []string{base64of(hidden)}},
		{name: "is gone", method: "GET", path: secretsPath + "/s", want: 404},

		{name: "config map", method: "POST", path: configMapsPath, body: `{"metadata":{"name":"c"},"data":{"k":"v"},"binaryData":{"b":"/w=="}}`, want: 201},
		{name: "config map, a key twice", method: "POST", path: configMapsPath, body: `{"metadata":{"name":"d"},"data":{"k":"v"},"binaryData":{"k":"/w=="}}`, want: 422},
		{name: "config map, patch", method: "PATCH", path: configMapsPath + "/c", body: `{"data":{"k":"w"}}`, header: merge, want: 200, contains: []string{`"k":"w"`, `"b":"/w=="`}},
		{name: "config map, replace", method: "PUT", path: configMapsPath + "/c", body: `{"metadata":{"name":"c"},"data":{"n":"1"}}`, want: 200, contains: []string{`"n":"1"`}, lacks: []string{"binaryData"}},
		{name: "claim", method: "POST", path: claimsPath, body: `{"metadata":{"name":"v"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}`,
			want: 201, contains: []string{`"phase":"Bound"`, core.FinalizerVolume}},
		{name: "claim without a size", method: "POST", path: claimsPath, body: `{"metadata":{"name":"w"},"spec":{"accessModes":["ReadWriteOnce"]}}`, want: 422, contains: []string{"storage"}},
		{name: "claim, delete", method: "DELETE", path: claimsPath + "/v", want: 200, contains: []string{"deletionTimestamp"}},
		{name: "config map, delete", method: "DELETE", path: configMapsPath + "/c", want: 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.header == nil {
				tc.header = jsonBody
			}
			w := f.do(tc.method, tc.path, strings.NewReader(tc.body), tc.header)
			if w.Code != tc.want {
				t.Fatalf("got %d, want %d: %s", w.Code, tc.want, w.Body)
			}
			for _, part := range tc.contains {
				if !strings.Contains(w.Body.String(), part) {
					t.Errorf("%q is missing: %s", part, w.Body)
				}
			}
			for _, part := range tc.lacks {
				if strings.Contains(w.Body.String(), part) {
					t.Errorf("%q is there: %s", part, w.Body)
				}
			}
		})
	}
}

// TestSecretsAreNotInTables: tables are made to be looked at.
func TestSecretsAreNotInTables(t *testing.T) {
	f := newFixture(t)
	secret := &core.Secret{ObjectMeta: core.ObjectMeta{Name: "s", Namespace: "default", Annotations: map[string]string{"last": hidden}},
		SecretType: core.SecretOpaque, Data: map[string][]byte{"password": []byte(hidden), "user": []byte(hidden)}}
	if _, err := f.store.Commit(t.Context(), store.Op{Verb: store.Create, Kind: "secrets", Object: secret}); err != nil {
		t.Fatal(err)
	}
	check := func(body string) {
		t.Helper()
		if !strings.Contains(body, `"password,user"`) || strings.Contains(body, hidden) || strings.Contains(body, base64of(hidden)) {
			t.Errorf("want the keys and no value: %s", body)
		}
	}
	table := func(r *http.Request) { bearer(token)(r); r.Header.Set("Accept", tableAccept) }
	for _, path := range []string{secretsPath, secretsPath + "/s", "/api/v1/secrets"} {
		for _, include := range []string{"", "?includeObject=Object", "?includeObject=Metadata", "?includeObject=None"} {
			check(f.do(http.MethodGet, path+include, nil, table).Body.String())
		}
	}
	ts := httptest.NewServer(f)
	defer ts.Close()
	req, err := http.NewRequestWithContext(withTimeout(t), http.MethodGet, ts.URL+secretsPath+"?watch=true&includeObject=Object", nil)
	if err != nil {
		t.Fatal(err)
	}
	table(req)
	res, err := ts.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	line, err := bufio.NewReader(res.Body).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	check(line)
	if !json.Valid([]byte(line)) {
		t.Errorf("not JSON: %s", line)
	}
}
