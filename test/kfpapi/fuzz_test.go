package kfpapi_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/server/query"
)

func sortedFields(text string) []string {
	fields := strings.Fields(text)
	slices.Sort(fields)
	return fields
}

// list asks for runs and holds the answer to what every answer is: a page, or a
// refusal with a google.rpc code.
func list(t *testing.T, a *api, values url.Values) *httptest.ResponseRecorder {
	t.Helper()
	w := a.do("GET", "/apis/v2beta1/runs?"+values.Encode(), nil, "")
	var answer struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	err := json.Unmarshal(w.Body.Bytes(), &answer)
	if err != nil || (w.Code != http.StatusOK && (w.Code != http.StatusBadRequest || answer.Code != 3 || answer.Message == "")) {
		t.Fatalf("%v: %d %s", values, w.Code, w.Body)
	}
	return w
}

func FuzzFilter(f *testing.F) {
	a := fuzzAPI(f)
	for _, seed := range []string{"", "{}", `{"predicates":[{"operation":1,"key":"name","stringValue":"train a"}]}`, `{"predicates":[{"operation":"IN","key":"metric:acc","string_values":{"values":["1",""]}}]}`,
		`{"predicates":[{"operation":3,"key":"created_at","long_value":"9223372036854775807"},{"operation":9,"key":"parameter:lr","string_value":"\u0000"}]}`, `{"predicates":null}`,
		`{"predicates":[{"operation":6,"key":"metric:acc","string_value":"1e999"}]}`} {
		f.Add(seed, "metric:acc")
	}
	f.Fuzz(func(t *testing.T, filter, sort string) {
		w := list(t, a, url.Values{"filter": {filter}, "sort_by": {sort}, "page_size": {"3"}})
		if w.Code != http.StatusOK {
			return
		}
		var page runsPage
		decode(t, w, &page)
		if page.Next == "" {
			return
		}
		// What was taken is taken again, with its token.
		if w := list(t, a, url.Values{"filter": {filter}, "sort_by": {sort}, "page_token": {page.Next}}); w.Code != http.StatusOK {
			t.Fatalf("%q by %q is no longer understood with its token: %s", filter, sort, w.Body)
		}
	})
}

func FuzzSort(f *testing.F) {
	a := fuzzAPI(f)
	for _, seed := range []string{"", "name", "created_at desc", "metric:a b desc", "Metric:acc ASC", "parameter:", "param:lr", "name desc desc", " ", "metric:\x00 desc"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sort string) { list(t, a, url.Values{"sort_by": {sort}}) })
}

func FuzzToken(f *testing.F) {
	a := fuzzAPI(f)
	for _, at := range []query.Position{{}, {Span: "by age", Continue: "x"}, {Gathered: true, Object: "default/r01", Last: []byte("x"), Has: true}, {Span: "by field", Lacking: true}, {Span: "nothing"}} {
		f.Add(query.Token{Kind: "runs.skiff.dev", Namespace: "default", SortBy: "created_at", At: at}.Encode())
	}
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := query.DecodeToken(text); err == nil && token.Encode() != strings.TrimRight(text, "=") {
			// Two texts may say the same; what is written of it is read as it.
			again, err := query.DecodeToken(token.Encode())
			if err != nil || !again.Is(token) {
				t.Fatalf("%+v is read back as %+v, %v", token, again, err)
			}
		}
		list(t, a, url.Values{"page_token": {text}})
	})
}

// FuzzTokenFields: tokens whose sum is right, whatever is in them.
func FuzzTokenFields(f *testing.F) {
	a := fuzzAPI(f)
	f.Add("created_at", "", "by age", "", "", "", 0, false, false)
	f.Add("metric:acc", "", "by field", "", "", "", 3, true, false)
	f.Add("finished_at", `{"predicates":[]}`, "", "", "zz", "default/r01", 3, false, true)
	f.Fuzz(func(t *testing.T, sort, filter, span, next, last, object string, seen int, lacking, gathered bool) {
		list(t, a, url.Values{"page_token": {query.Token{Kind: "runs.skiff.dev", Namespace: "default", SortBy: sort, Filter: filter,
			At: query.Position{Span: span, Continue: next, Last: []byte(last), Object: object, Seen: seen, Lacking: lacking, Gathered: gathered, Has: last != ""}}.Encode()}})
	})
}

// FuzzUpload: whatever is sent as a form, it makes a pipeline or is refused.
func FuzzUpload(f *testing.F) {
	a := fuzzAPI(f)
	form := func(disposition, content string) []byte {
		return []byte("--b\r\nContent-Disposition: " + disposition + "\r\n\r\n" + content + "\r\n--b--\r\n")
	}
	tiny := "pipelineInfo: {name: tiny}\n"
	f.Add(form(`form-data; name="uploadfile"; filename="p.yaml"`, tiny), `multipart/form-data; boundary=b`)
	f.Add(form(`form-data; name="uploadfile"; filename="../../p.zip"`, "PK\x03\x04"), `multipart/form-data; boundary=b`)
	f.Add(form(`form-data; name="other"`, tiny), `multipart/form-data; boundary=b`)
	f.Add(form(`form-data; name="uploadfile"`, ""), `multipart/form-data; boundary=b`)
	f.Add([]byte("--b\r\n"), `multipart/form-data; boundary=b`)
	f.Add([]byte(tiny), `multipart/form-data`)
	f.Add(form(`form-data; name="uploadfile"; filename="p.tar.gz"`, "\x1f\x8b"), `multipart/form-data; boundary="b"`)
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		req := httptest.NewRequest("POST", "http://127.0.0.1:7433/apis/v2beta1/pipelines/upload?name=fuzz", bytes.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		a.ServeHTTP(w, req)
		switch w.Code {
		case http.StatusOK, http.StatusBadRequest, http.StatusConflict, http.StatusUnsupportedMediaType:
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("no JSON: %q", w.Body)
		}
	})
}
