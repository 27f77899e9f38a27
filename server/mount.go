package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/server/auth"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/server/route"
)

// mount puts every route behind the checks, and answers what no route does with
// a Status, after the same checks: a stranger cannot even tell what exists.
func (s *Server) mount() http.Handler {
	mux := http.NewServeMux()
	methods, refusals := map[string][]string{}, map[string]refuser{}
	for _, r := range s.routes {
		refusals[r.Path] = r.Refuse
		mux.Handle(r.Pattern(), s.guard(r))
		methods[r.Path] = append(methods[r.Path], r.Method)
	}
	for path, allowed := range methods {
		turnDown := refusals[path]
		refused := s.guard(route.Route{Path: path, Verb: "get", Resource: "unknown", Refuse: turnDown, Handler: methodNotAllowed(allowed, turnDown)})
		for _, method := range otherMethods(allowed) {
			mux.Handle(method+" "+path, refused)
		}
	}
	if _, taken := methods["/"]; !taken {
		mux.Handle("/", s.guard(route.Route{Path: "/", Verb: "get", Resource: "unknown", Handler: http.HandlerFunc(notFound)}))
	}
	return s.outer(mux)
}

// otherMethods are those of HTTP that are not allowed; a route for GET takes
// HEAD as well. A pattern for all methods could not stand beside one for some
// whose path is wider (pipelines/upload, pipelines/{name}).
func otherMethods(allowed []string) []string {
	all := []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions, http.MethodTrace, http.MethodConnect}
	return slices.DeleteFunc(all, func(method string) bool { return slices.Contains(allowed, method) })
}

// refuser answers a request that is turned down, as route.Route.Refuse.
type refuser func(w http.ResponseWriter, code int, reason, message string)

// turnDown answers in the manner of the route.
func (answer refuser) turnDown(w http.ResponseWriter, code int, reason, message string) {
	if answer != nil {
		answer(w, code, reason, message)
		return
	}
	kube.WriteError(w, &kube.Error{Code: code, Reason: reason, Message: message})
}

func methodNotAllowed(allowed []string, answer refuser) http.Handler {
	slices.Sort(allowed)
	list := strings.Join(allowed, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", list)
		answer.turnDown(w, http.StatusMethodNotAllowed, "MethodNotAllowed", fmt.Sprintf("%s is not supported here; use %s", r.Method, list))
	})
}

func notFound(w http.ResponseWriter, r *http.Request) {
	kube.WriteError(w, &kube.Error{Code: http.StatusNotFound, Reason: "NotFound",
		Message: fmt.Sprintf("the server could not find the requested resource %s", r.URL.Path)})
}

// outer is what every request meets first, known path or not.
func (s *Server) outer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause)
			}
			s.cfg.Logger.Error("request handler panicked", "method", r.Method, "path", r.URL.Path, "cause", cause, "stack", string(debug.Stack()))
			kube.WriteError(w, fmt.Errorf("internal error while serving %s %s; the daemon's log has the details", r.Method, r.URL.Path))
		}()
		header := w.Header()
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
		header.Set("Cache-Control", "no-store")
		if !s.web.HostAllowed(r) {
			// The answer holds nothing: it is for a page that was led here.
			w.WriteHeader(http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guard checks who calls, from where, with what, and whether they may.
func (s *Server) guard(r route.Route) http.Handler {
	answer := refuser(r.Refuse)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.Public {
			identity, err := s.authn.Authenticate(req)
			if err != nil {
				answer.turnDown(w, http.StatusUnauthorized, "Unauthorized", err.Error())
				return
			}
			req = req.WithContext(auth.WithIdentity(req.Context(), identity))
		}
		if err := s.web.SameOrigin(req); err != nil {
			forbid(w, answer, fmt.Sprintf("requests that change something are not taken from another site's page: %v", err))
			return
		}
		if r.Asks {
			req = auth.WithGate(req, s.authz, attributes(r, req))
		} else if !r.Public {
			if ok, reason := s.authz.Allowed(attributes(r, req)); !ok {
				forbid(w, answer, reason)
				return
			}
		}
		if err := checkBody(w, r, req); err != nil {
			status := kube.StatusOf(err)
			answer.turnDown(w, status.Code, status.Reason, status.Message)
			return
		}
		if r.Stream {
			ctx, done := s.streamContext(req.Context())
			defer done()
			req = req.WithContext(ctx)
			// Streams set a deadline for each write; the connection's next
			// request must not inherit the last one.
			control := http.NewResponseController(w)
			defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
		}
		start := time.Now()
		r.Handler.ServeHTTP(w, req)
		s.cfg.Logger.LogAttrs(req.Context(), slog.LevelDebug, "request served",
			slog.String("method", req.Method), slog.String("path", req.URL.Path), slog.Duration("took", time.Since(start)))
	})
}

func forbid(w http.ResponseWriter, answer refuser, reason string) {
	answer.turnDown(w, http.StatusForbidden, "Forbidden", "forbidden: "+reason)
}

func attributes(r route.Route, req *http.Request) auth.Attributes {
	identity, _ := auth.IdentityFrom(req.Context())
	return auth.Attributes{
		User: identity.User, Verb: r.Verb, Group: r.Group, Resource: r.Resource, Subresource: r.Subresource,
		Namespace: req.PathValue("namespace"), Name: req.PathValue("name"),
	}
}

// checkBody limits the body's size and time and holds its type to what the
// route takes: a form or plain text, which a foreign page can send without
// asking first, is taken by none.
func checkBody(w http.ResponseWriter, r route.Route, req *http.Request) error {
	limit := r.MaxBody
	if limit == 0 {
		limit = route.DefaultMaxBody
	}
	req.Body = http.MaxBytesReader(w, req.Body, limit)
	if req.ContentLength > limit {
		return fmt.Errorf("read the body: %w", &http.MaxBytesError{Limit: limit})
	}
	if req.ContentLength != 0 {
		// Where the connection cannot have a deadline, the size still bounds it.
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
		req.Body = &timedBody{ReadCloser: req.Body, control: control, each: r.LongBody}
	}
	if r.Accepts == nil || req.ContentLength == 0 {
		return nil
	}
	mediaType, _, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if err != nil || !slices.Contains(r.Accepts, mediaType) {
		return &kube.Error{Code: http.StatusUnsupportedMediaType, Reason: "UnsupportedMediaType",
			Message: fmt.Sprintf("the body's content type %q is not taken here; use %s",
				req.Header.Get("Content-Type"), strings.Join(r.Accepts, ", "))}
	}
	return nil
}

// timedBody lifts the read deadline once the body is read: what the handler
// does with it may take longer, and net/http takes a deadline that passes for a
// client that left.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
	// each is the time of each read; 0 where all have one.
	each time.Duration
}

// Read implements io.Reader.
func (b *timedBody) Read(p []byte) (int, error) {
	if b.each > 0 {
		_ = b.control.SetReadDeadline(time.Now().Add(b.each))
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// streamContext ends with the request, or when the server drains. done must be
// called.
func (s *Server) streamContext(parent context.Context) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-s.draining:
			cancel(errShutdown)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}
