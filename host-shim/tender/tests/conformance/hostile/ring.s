# The network's ring, where the tender offers one: else the guest ends with status 3. r12 is the ring.
.macro finds_its_ring
    test dword ptr [rdi + 40], 1
    jz 1f
    mov r12, [rdi + 48]
    test r12, r12
    jnz 2f
1:  halt 3
2:
.endm

# Requests made: counts one more, and kicks where the tender sleeps.
.macro submits
    inc dword ptr [r12]
    mfence
    cmp dword ptr [r12 + 72], 0
    je 1f
    xor eax, eax
    mov edx, 0x600
    out dx, eax
1:
.endm

# The slot that the next request goes to, in rsi.
.macro next_entry
    mov esi, [r12]
    and esi, 1023
    shl esi, 5
    lea rsi, [r12 + rsi + 128]
.endm

# Sends each frame back that comes, 1000 times; device 1 is a net.
guest echoes_by_ring
    finds_its_ring
    xor ebx, ebx
    xor r13d, r13d
3:  next_entry
    mov dword ptr [rsi], 2
    mov dword ptr [rsi + 4], 1
    mov qword ptr [rsi + 8], BUFFER
    mov dword ptr [rsi + 16], 2048
    mov [rsi + 20], r13d
    submits
4:  mov eax, [r12 + 68]
    cmp eax, [r12 + 4]
    jne 5f
    pause
    jmp 4b
    # The answer: its id is that of the request.
5:  mov edi, [r12 + 4]
    and edi, 1023
    shl edi, 4
    lea rdi, [r12 + rdi + 128 + 1024 * 32]
    cmp [rdi], r13d
    jne 9f
    inc r13d
    mov eax, [rdi + 4]
    mov ecx, [rdi + 8]
    inc dword ptr [r12 + 4]
    cmp eax, 1
    je 3b
    test eax, eax
    jnz 9f
    next_entry
    mov dword ptr [rsi], 1
    mov dword ptr [rsi + 4], 1
    mov qword ptr [rsi + 8], BUFFER
    mov [rsi + 16], ecx
    submits
    # The buffer is free when the tender has taken all requests.
6:  mov eax, [r12 + 64]
    cmp eax, [r12]
    jne 6b
    inc ebx
    cmp ebx, 1000
    jb 3b
    halt 0
9:  halt 1
endguest echoes_by_ring

guest counts_too_much_in_its_ring
    finds_its_ring
    add dword ptr [r12], 4999
    submits
3:  jmp 3b
endguest counts_too_much_in_its_ring

guest points_out_of_memory_in_its_ring
    finds_its_ring
    next_entry
    mov dword ptr [rsi], 2
    mov dword ptr [rsi + 4], 1
    # The ring itself is beyond the guest's memory too.
    mov [rsi + 8], r12
    mov dword ptr [rsi + 16], 64
    submits
3:  jmp 3b
endguest points_out_of_memory_in_its_ring

# A handle that is no net, an operation that is none, and a request that is as large as numbers go.
guest talks_nonsense_in_its_ring
    finds_its_ring
    .irp operation, 2, 7, 1
    next_entry
    mov dword ptr [rsi], \operation
    mov dword ptr [rsi + 4], 99
    mov qword ptr [rsi + 8], -1
    mov dword ptr [rsi + 16], -1
    submits
    .endr
3:  mov eax, [r12 + 64]
    cmp eax, [r12]
    jne 3b
    # Only the read was answered: EINVAL.
    cmp dword ptr [r12 + 68], 1
    jne 9f
    cmp dword ptr [r12 + 128 + 1024 * 32 + 4], 2
    jne 9f
    halt 0
9:  halt 1
endguest talks_nonsense_in_its_ring
