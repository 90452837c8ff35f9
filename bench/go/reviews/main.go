// Reviews answers what a server asks of an API server about its callers: TokenReviews and
// SubjectAccessReviews, each with yes. A token is its owner's name, up to the first dot.
//
// It is led by commands, one JSON object a line on standard input, each answered by one on
// standard output:
//
//	{"do": "count"}   how many reviews of each kind were answered
//	{"do": "quit"}    end, as the end of standard input does
package main

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"vmsvc-grpc/bench/go/internal/commands"
)

const (
	tokenReviews  = "/apis/authentication.k8s.io/v1/tokenreviews"
	accessReviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
)

var tokens, rights atomic.Int64

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		http.HandleFunc("POST "+tokenReviews, tokenReview)
		http.HandleFunc("POST "+accessReviews, accessReview)
		go http.Serve(listener, nil)
		err = commands.Answer(map[string]string{
			"event": "serving", "address": listener.Addr().String(),
		})
	}
	if err == nil {
		err = commands.Follow(do)
	}
	if err != nil {
		commands.Fail(err)
	}
}

func do(command string, _ json.RawMessage) (any, error) {
	if command != "count" {
		return nil, errors.New("not known")
	}
	return map[string]int64{"tokens": tokens.Load(), "rights": rights.Load()}, nil
}

func tokenReview(w http.ResponseWriter, r *http.Request) {
	var review struct {
		Spec struct {
			Token     string
			Audiences []string
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	tokens.Add(1)
	owner, _, _ := strings.Cut(review.Spec.Token, ".")
	answer(w, map[string]any{
		"authenticated": true,
		"audiences":     review.Spec.Audiences,
		"user": map[string]any{
			"username": "system:serviceaccount:bench:" + owner,
			"groups":   []string{"system:serviceaccounts", "system:serviceaccounts:bench"},
		},
	})
}

func accessReview(w http.ResponseWriter, _ *http.Request) {
	rights.Add(1)
	answer(w, map[string]any{"allowed": true})
}

func answer(w http.ResponseWriter, status map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(map[string]any{"status": status})
}
