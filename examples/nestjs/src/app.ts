import 'reflect-metadata';
import { readFileSync } from 'node:fs';
import type { INestMicroservice } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { type GrpcOptions, Transport } from '@nestjs/microservices';
import { descriptorRules, type Guard } from '@portcullis/guard';
import { GreeterModule } from './greeter.js';

/** What the server and its clients load. */
export const SCHEMA = {
  package: 'greeter.v1',
  protoPath: 'greeter/v1/greeter.proto',
  loader: { includeDirs: ['proto', 'node_modules/@portcullis/guard/proto'] },
};

/** A NestJS microservice on this address, whose methods the guard decides. */
export async function createApp(guard: Guard, url: string): Promise<INestMicroservice> {
  guard.protect(descriptorRules(readFileSync('gen/greeter.binpb')));
  return await NestFactory.createMicroservice<GrpcOptions>(GreeterModule, {
    logger: ['error', 'warn'],
    transport: Transport.GRPC,
    // NestJS passes the channel options on to the server of grpc-js, and these among them.
    options: { ...SCHEMA, url, channelOptions: { interceptors: [guard.interceptor] } },
  });
}
