package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The service that all call: unary methods, for calls that share a context but
// no proof, and a stream. All of them send back what they got.
const (
	serviceName = "tenantmesh.bench.v1.Echo"
	chat        = "/" + serviceName + "/Chat"
	unaries     = 8
)

// methods are the full names of the unary methods.
var methods [unaries]string

// init describes the service as generated code would: the guard looks its
// methods up.
func init() {
	wrapper := wrapperspb.File_google_protobuf_wrappers_proto
	message := proto.String("." + string((*wrapperspb.BytesValue)(nil).ProtoReflect().Descriptor().FullName()))
	service := &descriptorpb.ServiceDescriptorProto{Name: proto.String("Echo"), Method: []*descriptorpb.MethodDescriptorProto{{
		Name: proto.String("Chat"), InputType: message, OutputType: message, ClientStreaming: proto.Bool(true), ServerStreaming: proto.Bool(true),
	}}}
	for i := range methods {
		name := fmt.Sprintf("Call%d", i)
		methods[i] = "/" + serviceName + "/" + name
		service.Method = append(service.Method, &descriptorpb.MethodDescriptorProto{Name: &name, InputType: message, OutputType: message})
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("tenantmesh/bench/v1/echo.proto"), Package: proto.String("tenantmesh.bench.v1"), Syntax: proto.String("proto3"),
		Dependency: []string{wrapper.Path()}, Service: []*descriptorpb.ServiceDescriptorProto{service},
	}, protoregistry.GlobalFiles)
	if err == nil {
		err = protoregistry.GlobalFiles.RegisterFile(file)
	}
	if err != nil {
		panic(err)
	}
}

// handler is what a call runs, with its context: of a stream, when it opens.
type handler func(ctx context.Context) error

// register registers the service.
func register(srv *grpc.Server, handle handler) {
	desc := &grpc.ServiceDesc{ServiceName: serviceName, HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Chat", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			if err := handle(stream.Context()); err != nil {
				return err
			}
			for {
				m := new(wrapperspb.BytesValue)
				if err := stream.RecvMsg(m); err != nil {
					return err
				}
				if err := stream.SendMsg(m); err != nil {
					return err
				}
			}
		},
	}}}
	echo := func(ctx context.Context, in any) (any, error) { return in, handle(ctx) }
	for i, full := range methods {
		desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: fmt.Sprintf("Call%d", i),
			Handler: func(srv any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
				in := new(wrapperspb.BytesValue)
				if err := decode(in); err != nil {
					return nil, err
				}
				if around == nil {
					return echo(ctx, in)
				}
				return around(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, echo)
			},
		})
	}
	srv.RegisterService(desc, nil)
}

// payload is what is sent: 100 bytes.
var payload = wrapperspb.Bytes(make([]byte, 100))

// call makes a unary call.
func call(ctx context.Context, cc *grpc.ClientConn, method string) error {
	return cc.Invoke(ctx, method, payload, new(wrapperspb.BytesValue))
}
